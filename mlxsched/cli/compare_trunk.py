"""``mlxsched compare --trunk``: several lengths of a run for little more than the price of the longest."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.options import load_given
from mlxsched.cli.output import note, picture, print_json, say, table
from mlxsched.errors import Stopped
from mlxsched.text import clock, counted

if TYPE_CHECKING:
    from mlxsched.experiments.trunk import Comparison, Result
    from mlxsched.render.chart import Chart
    from mlxsched.runs.directory import RunDirectory
    from mlxsched.training.policies.base import Policy
    from mlxsched.training.progress import Progress
    from mlxsched.training.session import Session


def compare_lengths(ctx: click.Context) -> None:
    """Train what is not finished yet, and show how each length ended."""
    from mlxsched.experiments.trunk import run_comparison

    flags = ctx.params
    comparison = _comparison(ctx, flags["resume"], flags["budgets"])
    _show_plan(comparison)
    try:
        found = run_comparison(comparison, _Trainer(comparison, plain=flags["plain"]), note)
    except Stopped as stopped:
        stopped.args = (
            f"Stopped; everything is saved. Continue with: mlxsched compare --resume {shlex.quote(str(comparison.path))}",
        )
        raise
    _show(comparison, found, as_json=flags["as_json"], output=flags["output"])


def _comparison(ctx: click.Context, resume: Path | None, budgets: str) -> Comparison:
    from mlxsched.experiments.refusals import without_preset_limit
    from mlxsched.experiments.trunk import plan_comparison, save_settings, saved_settings
    from mlxsched.platform.paths import cache_home
    from mlxsched.runs.store import at_free_name, run_path

    if resume is not None:
        config, origins, saved = saved_settings(resume)
        config = config.model_copy(update={"trust_remote_code": bool(ctx.params["trust_remote_code"])})
        return plan_comparison(resume, config, origins, saved, cache=cache_home())
    loaded = load_given(ctx)
    config = without_preset_limit(loaded.config, loaded.origins, note)
    path = run_path(loaded.config.run_dir, loaded.config.name, "compare")
    comparison = plan_comparison(
        path,
        config,
        loaded.origins,
        budgets,
        cache=cache_home(),
        on_load=lambda model: note(f"Loading {model} ..."),
    )

    def create(free: Path) -> Comparison:
        save_settings(moved := replace(comparison, path=free))
        return moved

    return at_free_name(path, named=loaded.config.names_run, create=create)


def _show_plan(comparison: Comparison) -> None:
    last = comparison.branches[-1]
    separate = sum(branch.budget for branch in comparison.branches)
    lengths = ", ".join(f"{branch.budget}" for branch in comparison.branches)
    note(
        f"Comparison: {comparison.path}\nLengths: {lengths} updates. Trunk of {comparison.trunk_updates}, then "
        f"{counted(len(comparison.branches), 'cooldown')}: {comparison.updates_spent(last)} updates in all, where separate "
        f"runs would take {separate}."
    )


class _Trainer:
    """Trains one run after the other, each with a display, and says how long the rest will take."""

    def __init__(self, comparison: Comparison, *, plain: bool) -> None:
        self._plain = plain
        self._left = comparison.updates_spent(comparison.branches[-1])
        self._seconds = self._made = 0.0

    def __call__(self, session: Session, run: RunDirectory, resume: bool, policies: list[Policy]) -> Progress:
        from mlxsched.cli.interrupt import stop_request
        from mlxsched.cli.progress import Display
        from mlxsched.training.assembly import work_of
        from mlxsched.training.run import execute

        done = max([0, *run.checkpoints.updates()])
        started = time.monotonic()
        every = session.config.steps_per_report
        work = work_of(session)
        with Display(session.plan.updates, every, plain=self._plain, done=done, work=work) as display:
            stop = stop_request(run, display)
            progress = execute(session, run, display, resume=resume, stop=stop, policies=policies)
        self._seconds += time.monotonic() - started
        self._made += progress.update - done
        self._left -= progress.update - done
        if self._left > 0 and self._made:
            note(f"About {clock(self._seconds / self._made * self._left)} left in all.")
        return progress


def _show(comparison: Comparison, found: list[Result], *, as_json: bool, output: Path | None) -> None:
    from mlxsched.render.image import save
    from mlxsched.render.terminal import draw, look_of_stdout

    chart = _chart(found)
    if output is not None:
        save(chart, output)
        note(f"Chart: {output}")
    if as_json:
        print_json(_as_json(comparison, found))
        return
    best = min((one.loss for one in found if one.loss is not None), default=None)
    rows = [
        (
            one.budget,
            one.cooldown,
            "-" if one.loss is None else f"{one.loss:.4f}{' *' if one.loss == best else ''}",
            one.updates_spent,
            str(one.run),
        )
        for one in found
    ]
    table(rows, header=("updates", "cooldown", "validation loss", "spent so far", "run"), title="Lengths")
    say("* the lowest")
    if any(one.loss is not None for one in found):
        picture(draw(chart, look_of_stdout(height=12)) + "\n")


def _chart(found: list[Result]) -> Chart:
    from mlxsched.render.chart import Chart, Series

    measured = [one for one in found if one.loss is not None]
    spent = tuple(one.updates_spent for one in measured)
    losses = tuple(one.loss or 0.0 for one in measured)
    series = (Series("after the cooldown", spent, losses), Series("measured", spent, losses, style="dots"))
    title = "one trunk, several lengths"
    # A logarithmic axis does not start at zero, where the differences would be invisible.
    return Chart(title, "updates spent, the trunk counted once", "validation loss", series, log_y=True)


def _as_json(comparison: Comparison, found: list[Result]) -> dict[str, Any]:
    config, peak = comparison.config, comparison.session.plan.peak
    results: list[dict[str, Any]] = [
        {
            "schedule": "wsd",
            "peak": peak,
            "seed": config.seed,
            "loss": one.loss,
            "budget": one.budget,
            "cooldown": one.cooldown,
            "updates_spent": one.updates_spent,
            "best_loss": one.best_loss,
            "run": str(one.run),
        }
        for one in found
    ]
    measured = [one for one in results if one["loss"] is not None]
    best = min(measured, key=lambda one: one["loss"], default=None)
    return {
        "path": str(comparison.path),
        "trunk_updates": comparison.trunk_updates,
        "updates_spent": comparison.updates_spent(comparison.branches[-1]),
        "separate_updates": sum(branch.budget for branch in comparison.branches),
        "results": results,
        # One seed has no interval.
        "best": {"wsd": best and {**best, "interval": None}},
    }
