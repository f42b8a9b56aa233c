"""Starting a run and going on with one: directory, lock, signals, and an honest status at the end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlxsched.config.schema import RunConfig
from mlxsched.errors import MlxschedError, RunError, UsageError
from mlxsched.model.load import model_fingerprint
from mlxsched.model.trees import n_bytes
from mlxsched.platform.machine import versions
from mlxsched.platform.signals import StopRequest
from mlxsched.runs.atomic import StorageError
from mlxsched.runs.directory import RunDirectory, free_space_check
from mlxsched.runs.events import Sink
from mlxsched.runs.store import local_paths, stored_config
from mlxsched.training.host import Host, limits
from mlxsched.training.loop import Trainer
from mlxsched.training.progress import Progress
from mlxsched.training.session import Session


def create_run(session: Session, path: Path) -> RunDirectory:
    """Make the directory of a new run; the disk must have room for its checkpoints."""
    free_space_check(path, _bytes_needed(session))
    return RunDirectory.create(
        path,
        config=session.config.to_dict(),
        origins=dict(session.origins),
        plan=session.plan.to_dict(),
        paths=local_paths(_read_paths(session.config), path),
        **_identity(session),
    )


def _read_paths(config: RunConfig) -> dict[str, object]:
    values = config.to_dict()
    return {**values, "data": None} if config.hf_dataset else values


def _identity(session: Session) -> dict[str, Any]:
    """What a resume must find unchanged."""
    return {
        "versions": versions(),
        "data": {"fingerprint": session.dataset.fingerprint},
        "model": {"fingerprint": model_fingerprint(session.loaded.path)},
    }


def _bytes_needed(session: Session) -> int:
    weights = n_bytes(session.loaded.model.trainable_parameters())
    checkpoint = 3 * weights  # the weights and two moments
    return checkpoint * (session.config.keep_last + 1) + 3 * weights


# What decides which rows an update holds: keys of the plan, and what to call them.
_ORDER = {"batch_size": "rows of an update", "length_window": "length_window"}


def changes_since(run: RunDirectory, session: Session) -> list[str]:
    """What is no longer as it was when ``run`` began: versions, data, model or order; going on would not be exact."""
    found = []
    for kind, now in _identity(session).items():
        before: Mapping[str, Any] = getattr(run.info, kind)
        found += [
            f"{'the content of the ' + kind if key == 'fingerprint' else key} "
            f"({_short(before.get(key))} then, {_short(value)} now)"
            for key, value in now.items()
            if before.get(key) != value
        ]
    plan, now_planned = run.info.plan, session.plan.to_dict()
    return found + [
        f"{name} ({plan[key]} then, {now_planned[key]} now)"
        for key, name in _ORDER.items()
        if key in plan and plan[key] != now_planned[key]
    ]


def _short(value: object) -> str:
    return str(value)[:12]


def refuse_changes(run: RunDirectory, session: Session, *, force: bool) -> list[str]:
    """The changes that ``force`` lets pass; without it ``UsageError`` if there are any."""
    changes = changes_since(run, session)
    if changes and not force:
        listed = "\n  ".join(changes)
        raise UsageError(
            f"{run.path} can't go on exactly as it began; what changed:\n  {listed}\n"
            "Put it back, or go on all the same with --force."
        )
    return changes


def execute(
    session: Session,
    run: RunDirectory,
    emit: Sink,
    *,
    resume: bool = False,
    stop: StopRequest | None = None,
) -> Progress:
    """Train to the end, or from the last checkpoint to the end; ``run.json`` tells how it went.

    ``stop`` watches for signals meanwhile. Raises ``Stopped`` after one, and a ``RunError`` when it could not go on.
    """
    stop = StopRequest() if stop is None else stop  # which is false as long as no signal has come
    with run.lock(), stop, limits(session.config):
        trainer = Trainer(
            session,
            run,
            emit,
            stop_signal=lambda: stop.signal_number,
            between_updates=Host(session.config, lambda: trainer.progress.update, lambda: bool(stop)),
        )
        run.update_info(status="running", message="", short_cuts=trainer.short_cuts)
        try:
            if resume:
                trainer.resume()
            return trainer.train()
        except Exception as error:
            raise _failed(run, error) from error


def _failed(run: RunDirectory, error: Exception) -> Exception:
    """Note a failure in run.json, as far as the disk allows; the error as the user should see it."""
    told = error if isinstance(error, MlxschedError) else _out_of_memory(run, error) or error
    if run.info.status == "running":
        with suppress(StorageError):
            run.update_info(status="failed", message=str(told))
    return told


def _out_of_memory(run: RunDirectory, error: Exception) -> RunError | None:
    text = str(error).lower()
    if not isinstance(error, MemoryError) and not ("alloc" in text or "out of memory" in text):
        return None
    return RunError(
        f"out of memory: {str(error)[:200]}\nLower --micro-batch-tokens (the result stays the same) or "
        f"--max-seq-length, or use a quantized model; then: mlxsched resume {run.path} --force"
    )


def config_of(
    run: RunDirectory,
    *,
    adapter_path: str | None = None,
    trust_remote_code: bool = False,
    need: Collection[str] = ("data", "model"),
    **given: object,
) -> RunConfig:
    """The config that `run` was started with, with `given` values in place of its own (see `stored_config`).

    Permissions to reach beyond the run's directory (another place to write to, a model's code) are never read from a
    file: they must be given again.
    """
    values: dict[str, Any] = stored_config(run, need=need, **given)
    try:
        return RunConfig(**{**values, "adapter_path": adapter_path, "trust_remote_code": trust_remote_code})
    except ValueError as error:
        raise UsageError(
            f"{run.path}/run.json holds a config that this version cannot read: {error}"
        ) from error
