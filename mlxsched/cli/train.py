"""``mlxsched train``: fine-tune a model under a planned schedule."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.auto_rate import at_found_rate, takes_auto
from mlxsched.cli.options import GroupedCommand, load_given, run_options
from mlxsched.cli.output import note, print_json
from mlxsched.cli.rows_read import RowsRead
from mlxsched.cli.workers import meet, run_as_worker, share_config, worker_options
from mlxsched.errors import UsageError
from mlxsched.tracking.names import check_names

if TYPE_CHECKING:
    from mlxsched.config import LoadedConfig
    from mlxsched.runs.directory import RunDirectory
    from mlxsched.training.session import Session
    from mlxsched.training.workers.world import World


@click.command(cls=GroupedCommand)
@run_options
@click.option("--dry-run", is_flag=True, help="Plan, show where each value comes from, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--plain", is_flag=True, help="Print lines instead of a live display.")
@worker_options
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> int:
    """Fine-tune a language model as planned, and measure the result.

    Without --model and --data it trains the bundled tiny model on the bundled spreadsheet formulas, offline.
    --learning-rate auto uses the peak that `mlxsched lr-find` found for these settings, or runs that search first.

    \b
    Examples:
      mlxsched train --preset laptop
      mlxsched train --preset lora --model Qwen/Qwen3-0.6B --data my/folder --epochs 2
      mlxsched train --preset laptop --schedule "wsd(decay=0.1)" --dry-run
      mlxsched train --preset lora --learning-rate auto
      mlxsched train -c lora_config.yaml
    """
    return run_as_worker(flags, lambda world: _train(ctx, world))


def _train(ctx: click.Context, world: World) -> None:
    flags = ctx.params
    auto = takes_auto(flags)
    loaded = load_given(ctx)
    check_names(loaded.config.report_to)  # a mistake is found before anything is loaded
    path = _path_of_new_run(loaded, flags["preset"])
    if auto and not world.alone:
        raise UsageError(
            "--learning-rate auto needs a single worker. Run `mlxsched lr-find` first, and give the rate that it suggests."
        )
    session = make_session(share_config(world, loaded))
    if auto:
        session = at_found_rate(session, search=not flags["dry_run"], plain=flags["plain"])
    if flags["dry_run"]:
        _show_dry_run(session, flags["as_json"])
        return
    _show_start(session)
    from mlxsched.runs.store import at_free_name
    from mlxsched.training.run import create_run

    session = meet(session, world)
    run = at_free_name(path, named=loaded.config.names_run, create=lambda free: create_run(session, free))
    train_and_tell(session, run, plain=flags["plain"], as_json=flags["as_json"])


def _path_of_new_run(loaded: LoadedConfig, preset: str | None) -> Path:
    """Refuse a directory that is taken before anything long is done."""
    from mlxsched.runs.store import refuse_taken, run_path

    path = run_path(loaded.config.run_dir, loaded.config.name, preset)
    refuse_taken(path)
    return path


def make_session(loaded: LoadedConfig) -> Session:
    """Load and plan, telling what takes long."""
    from mlxsched.errors import Stopped
    from mlxsched.platform.paths import cache_home
    from mlxsched.training.session import prepare

    note(f"Loading {loaded.config.model} ...")
    try:
        return prepare(loaded.config, loaded.origins, cache=cache_home(), on_progress=RowsRead())
    except KeyboardInterrupt:
        raise Stopped("Stopped before the training began.", signal.SIGINT) from None


def _show_dry_run(session: Session, as_json: bool) -> None:
    from mlxsched.cli.plan_view import plan_json, show_origins, show_plan
    from mlxsched.training.estimate import estimate_plan

    expected = estimate_plan(session)
    if as_json:
        print_json(plan_json(session, expected))
        return
    show_plan(session, stderr=False, expected=expected)
    show_origins(session, stderr=False)


def _show_start(session: Session) -> None:
    from mlxsched.cli.plan_view import show_plan
    from mlxsched.platform.blas import ADVICE, blas_in_use

    show_plan(session, stderr=True)
    if blas_in_use() == "reference":
        note(f"Note: {ADVICE}")


def _tell_check() -> None:
    """Announce the self-check, which takes longer on a machine without kernels."""
    import mlx.core as mx

    from mlxsched.platform.kernels import built_kernels

    once = ""
    if not built_kernels() and not mx.metal.is_available():
        cpu = mx.default_device().type == mx.DeviceType.cpu
        name, time = ("CPU", "up to half a minute") if cpu else ("CUDA", "several minutes")
        once = f" MLX builds its {name} kernels first, once per machine; this takes {time}."
    note(f"Checking the optimizations on your rows ...{once}")


def train_and_tell(
    session: Session, run: RunDirectory, *, plain: bool, as_json: bool, resume: bool = False
) -> None:
    """Train with a display, then print the result."""
    from mlxsched.cli.interrupt import stop_request
    from mlxsched.cli.kernel_watch import watching_kernels
    from mlxsched.cli.progress import Display
    from mlxsched.cli.results import Took, results_json, show_results
    from mlxsched.tracking import sinks
    from mlxsched.training.assembly import work_of
    from mlxsched.training.run import execute

    note(f"Run: {run.path}")
    if session.config.fast:
        _tell_check()
    config = session.config
    done = run.info.update if resume else 0
    updates, every = session.plan.updates, config.steps_per_report
    with Display(updates, every, plain=plain, done=done, work=work_of(session)) as display:
        trackers = sinks(config.report_to, run, config)
        try:
            with watching_kernels(display.show_kernels):
                progress = execute(
                    session, run, display, *trackers, resume=resume, stop=stop_request(run, display)
                )
        finally:  # also where the run could not say how it ended
            for tracker in trackers:
                tracker.close(run.info.status, run.info.message)
    took = Took(None if session.started is None else time.monotonic() - session.started, resume)
    if as_json:
        print_json(results_json(run, progress, took))
    else:
        show_results(run, progress, took)
