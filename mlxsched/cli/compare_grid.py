"""``mlxsched compare --schedules``, ``--vary``: the trials of a comparison, with progress and the time left."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.options import given_flags
from mlxsched.cli.output import note
from mlxsched.config.schema import NESTED, LoraParameters, RunConfig
from mlxsched.errors import ConfigError, Stopped, UsageError
from mlxsched.platform.signals import StopRequest, say
from mlxsched.runs.events import Event, UpdateMade
from mlxsched.text import clock, counted, did_you_mean, number

if TYPE_CHECKING:
    from mlxsched.experiments.grid import Trial, Variant
    from mlxsched.experiments.grid_run import GridComparison, Settings


def compare_over_grid(ctx: click.Context) -> None:
    """Make the trials that are not done yet, and show the result."""
    from mlxsched.experiments.grid_run import read_results, run_grid

    flags = ctx.params
    comparison = _comparison(ctx)
    done = read_results(comparison.path)
    _show_plan(comparison, len(done))
    display = TrialDisplay(comparison, done.values(), plain=flags["plain"])
    with display, StopRequest(lambda _: say("Stopping. Finished trials are kept.")) as stop:
        try:
            done = run_grid(comparison, display.tell, display, lambda: stop.signal_number)
        except Stopped as stopped:
            stopped.args = (
                f"Stopped; finished trials are kept. Continue with: mlxsched compare --resume {shlex.quote(str(comparison.path))}",
            )
            raise
    _show(comparison, list(done.values()), as_json=flags["as_json"], output=flags["output"])


def _show(comparison: GridComparison, trials: list[Trial], *, as_json: bool, output: Path | None) -> None:
    from mlxsched.cli.compare_view import show_comparison
    from mlxsched.experiments.ranking import Measured, points_of

    order = [row.variant for row in comparison.rows]
    whole = {row.variant: row.updates for row in comparison.rows}
    cells = sorted(
        (one for one in trials if one.cell.variant in whole), key=lambda one: order.index(one.cell.variant)
    )
    measured = [
        Measured(one.cell.variant, one.cell.peak, one.cell.seed, one.loss)
        for one in cells
        if one.cell.updates == whole[one.cell.variant]
    ]
    tried = {row.variant: row.peaks for row in comparison.rows}
    show_comparison(points_of(measured), tried, _details(comparison, cells), as_json=as_json, output=output)


def _comparison(ctx: click.Context) -> GridComparison:
    from mlxsched.experiments.grid_run import plan_grid, save_settings
    from mlxsched.platform.paths import cache_home
    from mlxsched.runs.store import at_free_name, run_path

    flags = ctx.params
    if flags["resume"] is not None:
        path = flags["resume"]
        settings = _extended(path, flags)
    else:
        settings = _settings(ctx)
        config = settings.variants[0].config
        path = run_path(config.run_dir, config.name, "compare")
    comparison = plan_grid(
        path, settings, cache=cache_home(), on_load=lambda model: note(f"Loading {model} ...")
    )
    if flags["resume"] is not None:
        return comparison

    def create(free: Path) -> GridComparison:
        save_settings(moved := replace(comparison, path=free))
        return moved

    return at_free_name(path, named=config.names_run, create=create)


def _settings(ctx: click.Context) -> Settings:
    from mlxsched.experiments.grid import default_peaks, parse_peaks, parse_seeds
    from mlxsched.experiments.grid_run import Settings

    flags = ctx.params
    variants = _variants(ctx)
    config = variants[0].config
    peaks = parse_peaks(flags["peaks"]) if flags["peaks"] else default_peaks(config.learning_rate)
    return Settings(variants, peaks, parse_seeds(flags["seeds"], config.seed), flags["halving"])


def _variants(ctx: click.Context) -> tuple[Variant, ...]:
    """One configuration for each combination of what is varied."""
    from mlxsched.config.load import load_config
    from mlxsched.experiments.grid import Variant, combinations, split_list, variant_name
    from mlxsched.experiments.refusals import without_preset_limit

    flags, given = ctx.params, given_flags(ctx)
    axes = {"schedule": split_list(flags["schedules"])} if flags["schedules"] else {}
    for entry in flags["vary"]:
        key, _, values = entry.partition("=")
        axes[_key(key.strip())] = split_list(values)
    if not all(axes.values()):
        raise UsageError("--schedules and --vary need values: --schedules linear,cosine or --vary rank=8,16.")
    found: dict[str, Variant] = {}
    for changes in combinations(axes):
        try:
            loaded = load_config(
                preset=flags["preset"],
                file=flags["config"],
                flags={**given, **changes},
                as_mlx_lm=flags["as_mlx_lm"],
            )
        except ConfigError as error:  # of the flag that was given
            raise ConfigError(str(error).replace("--schedule:", "--schedules:", 1)) from None
        name = variant_name(changes)
        say_once = note if not found else lambda text: None
        config = without_preset_limit(loaded.config, loaded.origins, say_once)
        found[name] = Variant(name, config, loaded.origins, changes)
    return tuple(found.values())


def _key(name: str) -> str:
    """The key of the configuration that ``name`` means; a key of the LoRA block may be given without its block."""
    name = name.removeprefix("--").replace("-", "_")
    inner = [f"{NESTED}.{key}" for key in LoraParameters.model_fields]
    known = [*RunConfig.model_fields, *inner]
    if f"{NESTED}.{name}" in inner:
        return f"{NESTED}.{name}"
    if name not in known:
        raise UsageError(
            f"--vary: there is no key {name!r}.{did_you_mean(name, known)} `mlxsched config` lists them."
        )
    return name


def _extended(path: Path, flags: dict[str, Any]) -> Settings:
    """The settings of a comparison that goes on, with the peaks and seeds that were added now."""
    from mlxsched.experiments.grid import parse_peaks, parse_seeds
    from mlxsched.experiments.grid_run import read_settings

    given = (
        click.get_current_context().get_parameter_source("seeds") == click.core.ParameterSource.COMMANDLINE
    )
    settings = read_settings(path, trust_remote_code=bool(flags["trust_remote_code"]))
    peaks = parse_peaks(flags["peaks"]) if flags["peaks"] else ()
    seeds = parse_seeds(flags["seeds"], settings.seeds[0]) if given else ()
    return replace(
        settings,
        peaks=tuple(sorted({*settings.peaks, *peaks})),
        seeds=tuple(dict.fromkeys([*settings.seeds, *seeds])),
    )


def _show_plan(comparison: GridComparison, done: int) -> None:
    settings, rows = comparison.settings, comparison.rows
    lengths = sorted({row.updates for row in rows})
    kept = f" {counted(done, 'trial')} kept from before." if done else ""
    halved = ", halved by the first seed's short trials" if settings.halving else ""
    note(
        f"Comparison: {comparison.path}\n"
        f"{counted(len(rows), 'variant')} at up to {counted(len(settings.peaks), 'peak')}{halved}, with "
        f"{counted(len(settings.seeds), 'seed')}: {comparison.updates:,} updates in trials of "
        f"{' or '.join(map(str, lengths))}.{kept}"
    )


def _details(comparison: GridComparison, trials: list[Trial]) -> dict[str, Any]:
    """What the JSON has besides the ranking."""
    variants = {one.name: one for one in comparison.settings.variants}
    results = [
        {
            "schedule": variants[one.cell.variant].changes.get("schedule")
            or variants[one.cell.variant].config.schedule,
            "peak": one.cell.peak,
            "seed": one.cell.seed,
            "loss": one.loss,
            "updates": one.cell.updates,
            "variant": one.cell.variant,
            "changes": dict(variants[one.cell.variant].changes),
            "seconds": round(one.seconds, 3),
        }
        for one in trials
        if one.cell.variant in variants
    ]
    return {
        "path": str(comparison.path),
        "updates_spent": sum(one.cell.updates for one in trials),
        "results": results,
    }


class TrialDisplay:
    """Shows the trials of a comparison and how long the rest takes; a context manager and a sink."""

    def __init__(self, comparison: GridComparison, done: Any, *, plain: bool) -> None:
        from mlxsched.cli.progress import LiveDisplay

        self._total = comparison.updates
        self._spent = sum(trial.cell.updates for trial in done)
        self._trials = len(done)
        self._made, self._started = 0, time.monotonic()
        live = not plain and sys.stderr.isatty()
        self._live = LiveDisplay(self._total, self._spent) if live else None

    def __enter__(self) -> TrialDisplay:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, UpdateMade):
            self._made += 1
            if self._live:
                parts = [
                    f"loss {event.smoothed:.3f}",
                    f"lr {event.lr:.2e}",
                    f"ETA {self._left(event.update + 1)}",
                ]
                self._live.update(self._spent + event.update + 1, parts)

    def tell(self, trial: Trial) -> None:
        """Print a line about a finished trial."""
        self._spent += trial.cell.updates
        self._trials += 1
        cell = trial.cell
        loss = "diverged" if trial.loss is None else f"validation loss {trial.loss:.4f}"
        line = (
            f"{self._trials}: {cell.variant}, peak {number(cell.peak)}, seed {cell.seed}, "
            f"{counted(cell.updates, 'update')}: {loss}; about {self._left(0)} left"
        )
        if self._live:
            self._live.say(line)
        else:
            note(line)

    def _left(self, into: int) -> str:
        """The time that the rest takes, ``into`` updates of the present trial."""
        left = max(self._total - self._spent - into, 0)
        return clock((time.monotonic() - self._started) / max(self._made, 1) * left)
