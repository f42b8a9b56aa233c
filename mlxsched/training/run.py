"""Starts and resumes a run: directory, lock, signals, and the final status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mlxsched.config.schema import RunConfig
from mlxsched.data.sources.open import is_one_file
from mlxsched.errors import DivergedError, MlxschedError, RunError, Stopped
from mlxsched.model.trees import flatten, n_bytes
from mlxsched.platform.signals import StopRequest
from mlxsched.runs.atomic import StorageError
from mlxsched.runs.directory import RunDirectory, free_space_check
from mlxsched.runs.events import Notice, RunFinished, RunStarted, Sink
from mlxsched.runs.sinks import Sinks
from mlxsched.runs.store import local_paths
from mlxsched.text import counted
from mlxsched.training.acceleration import Acceleration, accelerate
from mlxsched.training.assembly import (
    make_checkpointer,
    make_engine,
    make_evaluator,
    make_loader,
    make_pace,
    policies_of,
    resume_command,
)
from mlxsched.training.averaging import bytes_kept
from mlxsched.training.checkpointer import copy_adapter
from mlxsched.training.estimate import estimate
from mlxsched.training.gpu_timeout import gpu_timeout, is_gpu_timeout, is_watched, risk
from mlxsched.training.loop import Loop
from mlxsched.training.out_of_memory import out_of_memory
from mlxsched.training.policies.base import Policy
from mlxsched.training.policies.host import limits
from mlxsched.training.progress import Progress
from mlxsched.training.recorded import identity
from mlxsched.training.results import Measurement
from mlxsched.training.session import Session
from mlxsched.training.tuning.tuner import Tuner
from mlxsched.training.workers.world import WorkersLost


def create_run(session: Session, path: Path) -> RunDirectory:
    """Make the directory of a new run; the disk must have room for its checkpoints."""
    free_space_check(path, _bytes_needed(session))
    found = identity(session)
    return RunDirectory.create(
        path,
        config=session.config.to_dict(),
        origins=dict(session.origins),
        plan=session.plan.to_dict(),
        paths=local_paths(_read_paths(session.config), path),
        **{**found, "data": {**found["data"], **_validation(session)}},
    )


def _read_paths(config: RunConfig) -> dict[str, object]:
    values = config.to_dict()
    return {**values, "data": None} if config.hf_dataset else values


def _validation(session: Session) -> dict[str, object]:
    """Which rows are evaluated: runs with the same ones are comparable, whatever they train on."""
    valid, config = session.dataset.valid, session.config
    return {
        "valid": None if valid is None else valid.digest(),
        "split_by_seed": not config.hf_dataset and is_one_file(config.data),
    }


def _bytes_needed(session: Session) -> int:
    weights = n_bytes(session.loaded.model.trainable_parameters())
    trained = flatten(session.loaded.model.trainable_parameters())
    checkpoint = 3 * weights + bytes_kept(session.config, trained)  # the weights, two moments, an average
    return checkpoint * (session.config.keep_last + 1) + 3 * weights


def execute(
    session: Session,
    run: RunDirectory,
    *sinks: Sink,
    resume: bool = False,
    stop: StopRequest | None = None,
    policies: Sequence[Policy] = (),
) -> Progress:
    """Train to the end, or from the last checkpoint to the end; ``run.json`` records how it went.

    Args:
        session: the planned run.
        run: its directory, not locked.
        sinks: receive every event.
        resume: continue from the last checkpoint.
        stop: watches for signals meanwhile.
        policies: asked before the run's own.

    Raises:
        Stopped: a signal came; everything is saved.
        RunError: the run could not continue.
    """
    stop = StopRequest() if stop is None else stop  # which is false as long as no signal has come
    with run.lock(), stop, limits(session.config):
        fan_out = sinks_of(run, *sinks)
        try:
            number = lambda: stop.signal_number  # noqa: E731
            started = start(session, run, fan_out, resume=resume, stop_signal=number, policies=policies)
            progress = _train(session, run, *started)
            _end(run, fan_out, "finished", progress.ended or "")
            return progress
        except Stopped as stopped:
            _end(run, fan_out, "stopped", f"stopped by signal {stopped.signal_number}")
            raise
        except Exception as error:
            raise _failed(run, fan_out, error) from error


def sinks_of(run: RunDirectory, *sinks: Sink) -> Sinks:
    """``sinks`` behind the one that records ``run`` in its metrics.jsonl."""
    return Sinks(lambda event: run.metrics.record(event), *sinks)


class Started(NamedTuple):
    """The parts of a run that is about to train."""

    loop: Loop
    measurement: Measurement


def start(
    session: Session,
    run: RunDirectory,
    sinks: Sinks,
    *,
    resume: bool = False,
    stop_signal: Callable[[], int] = lambda: 0,
    policies: Sequence[Policy] = (),
) -> Started:
    """Get ``session`` ready to train into ``run``, whose lock the caller holds: from the beginning or a checkpoint."""
    notes, session = Notes(run, sinks), as_asked(session, run)
    tuner = _tuner(session, run, resume=resume)
    acceleration = accelerate(session, run.path, notes, tuner=tuner)
    run.update_info(
        status="running",
        message="",
        short_cuts=acceleration.describe(),
        tuning=tuner.record(),
        **_sizes(session, run),
    )
    pace = make_pace(session)
    loop = Loop(
        make_engine(session, acceleration.training),
        make_loader(session, acceleration.training, pace),
        pace,
        sinks,
        evaluator=make_evaluator(session, acceleration.validation),
        checkpointer=make_checkpointer(session, run, pace),
    )
    loop.policies = [*policies, *policies_of(session, run, loop, stop_signal)]
    loop.engine.restore(loop.engine.snapshot())  # with which other workers begin as well
    if resume:
        about_start = notes.take()
        loop.restore(notes)
        if run.metrics.position == 0:  # no checkpoint: the run starts again
            notes.put(about_start)
    notes.record(loop.progress.update)
    _announce(session, loop, acceleration, sinks, resume=resume)
    session.loaded.model.train()
    return Started(loop, Measurement(session, loop, acceleration.measuring))


def _sizes(session: Session, run: RunDirectory) -> dict[str, object]:
    """The micro-batch sizes in run.json: a resume may have received smaller ones, which the next resume uses as
    well."""
    key, info = "micro_batch_tokens", run.info
    size = session.config.micro_batch_tokens
    if info.config.get(key) == size:
        return {}
    planned = session.plan.to_dict()
    of_memory = {name: planned[name] for name in ("peak_memory_gb", "findings", "notes", "warnings")}
    return {
        "config": {**info.config, key: size},
        "origins": {**info.origins, key: session.origins.get(key, "default")},
        "plan": {**info.plan, **of_memory},
    }


def _announce(
    session: Session, loop: Loop, acceleration: Acceleration, sinks: Sinks, *, resume: bool
) -> None:
    """Emit that the run starts, how long it is expected to take, and whether macOS may end its micro-batches."""
    update, updates = loop.progress.update, loop.pace.updates
    expected = estimate(session, loop.engine, acceleration, update, updates)
    if expected and is_watched():
        longest = int(session.train_rows.lengths.max()) - 1
        warning = risk(expected.micro_batch, session.micro_batch_tokens, longest)
        if warning:
            sinks.show(Notice(update, "note", warning))
    measuring = expected.measuring if expected else loop.progress.times.get("measuring", 0.0)
    loop.emit(RunStarted(update, updates, resume, expected.seconds if expected else None, measuring))


def _tuner(session: Session, run: RunDirectory, *, resume: bool) -> Tuner:
    """The tuner, which chooses optimizations only once per run, so that a resume is exact."""
    begun = resume and bool(run.info.tuning or run.info.update)
    return Tuner(session, run.info.tuning if begun or not session.config.tune else None)


def as_asked(session: Session, run: RunDirectory) -> Session:
    """``session`` with the time limit of the last request to ``run``, in place of the one that it was started with."""
    if not run.info.requests:
        return session
    limit = {"max_time": run.info.requests[-1].max_time}
    return replace(session, config=session.config.model_copy(update=limit))


def _train(session: Session, run: RunDirectory, loop: Loop, measurement: Measurement) -> Progress:
    """Like `_train_to_the_end`, but save the state first if another worker or the device is lost."""
    try:
        return _train_to_the_end(session, run, loop, measurement)
    except WorkersLost as lost:
        loop.write_checkpoint()
        raise RunError(
            f"{lost}. The state after {counted(loop.progress.update, 'update')} is saved. Resume, with any number of "
            f"workers: {resume_command(session, run.path)}"
        ) from lost
    except RuntimeError as error:
        if not is_gpu_timeout(error):
            raise
        with suppress(RuntimeError, StorageError):  # the device may not compute any more
            if loop.engine.undo(loop.progress.update):
                loop.write_checkpoint()
        latest = run.checkpoints.latest_good()
        updates, resume = latest.update if latest else 0, resume_command(session, run.path)
        longest = int(session.train_rows.lengths.max()) - 1
        raise gpu_timeout(error, updates, session.micro_batch_tokens, longest, resume) from error


def _train_to_the_end(session: Session, run: RunDirectory, loop: Loop, measurement: Measurement) -> Progress:
    """Measure, train, measure again; keep the best adapter, and the last one if it is a different one."""
    measurement.before()
    loop.run()
    loop.finish()
    if not run.adapters.is_dir():
        raise DivergedError(
            "no adapter was written: the loss was not finite at any point. Look at the data with `mlxsched data check`, "
            "and lower --learning-rate."
        )
    measurement.after(run.adapters)
    if session.config.adapter_path:
        target = Path(session.config.adapter_path).expanduser()
        copy_adapter(run, session.adapter_config, target)
    progress = loop.progress
    # With best and results again: a kill after the last checkpoint may have come before run.json had them.
    run.update_info(update=progress.update, best=progress.best, results=dict(progress.results))
    return progress


def _end(run: RunDirectory, sinks: Sinks, status: str, message: str) -> None:
    """Record how the run ended, and tell the sinks."""
    run.update_info(status=status, message=message)
    sinks.show(RunFinished(run.info.update, status, message))


def _failed(run: RunDirectory, sinks: Sinks, error: Exception) -> Exception:
    """Record that ``error`` ended the run, and tell the sinks; returns it as a message for the user."""
    explained = _explained(run, error)
    with suppress(StorageError):  # the disk may be what failed
        run.update_info(status="failed", message=str(explained))
    with suppress(StorageError):
        sinks.show(RunFinished(run.info.update, "failed", str(explained)))
    return explained


class Notes:
    """Notes that come before the records may be written: a resume has yet to cut those back to its checkpoint."""

    def __init__(self, run: RunDirectory, sinks: Sinks) -> None:
        self._run, self._sinks = run, sinks
        self._texts: list[str] = []

    def __call__(self, text: str) -> None:
        """Show ``text`` now, and keep it for `record`."""
        self._sinks.show(Notice(0, "note", text))
        self._texts.append(text)

    def take(self) -> list[str]:
        """Remove and return the notes so far.

        What the acceleration says at a resume was recorded when the run began. It may differ now, since the caches hold
        more than they did, and a resumed run must have the records of an uninterrupted one.
        """
        texts, self._texts = self._texts, []
        return texts

    def put(self, texts: list[str]) -> None:
        """Put notes back that `take` returned."""
        self._texts = texts + self._texts

    def record(self, update: int) -> None:
        """Write the notes that the run has not had yet."""
        if not self._texts:
            return
        known = {record.get("message") for record in self._run.read_metrics() if record.get("code") == "note"}
        for text in dict.fromkeys(self._texts):
            if text not in known:
                self._run.metrics.record(Notice(update, "note", text))


def _explained(run: RunDirectory, error: Exception) -> Exception:
    """``error`` as the user should see it."""
    if isinstance(error, MlxschedError):
        return error
    return out_of_memory(error, f"mlxsched resume {run.path} --force") or error
