"""A run's directory: the one module that knows which file is where.

::

    run.json              what the run is, and its status (`RunInfo`)
    metrics.jsonl         one record a line
    checkpoints/000100/   a checkpoint after 100 updates
    adapters/             the adapter to use, in mlx-lm's format: the best by validation loss, or the last one
                          without a validation set; complete at any moment
    adapters_final/       the last adapter, when it is not the best
    adapters_average/     the average at the end of the run, with --average
    snapshots/000100/     the adapter at the end of a cycle of the schedule
    earlier/001000/       the run as it ended after 1000 updates, before it was extended (`mlxsched.runs.earlier`)
    request.json          what another process asks of the one that is training (`mlxsched.runs.requests`)
    .lock                 held while a process works here

A directory may come from a stranger: names are fixed or made from numbers, links are refused, sizes are limited, and
nothing outside is written because a file in it says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mlxsched.errors import UsageError, UserError
from mlxsched.runs import atomic
from mlxsched.runs.checkpoints import Checkpoint, Checkpoints
from mlxsched.runs.info import RunInfo, read_info, to_json, without_permissions
from mlxsched.runs.json_file import reading_errors
from mlxsched.runs.lock import LOCK_NAME, RunLock
from mlxsched.runs.metrics import MetricsWriter, Record, read_metrics
from mlxsched.runs.requests import REQUEST_FILE, Request

DEFAULT_ROOT = Path("runs")
RUN_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
ADAPTER_FILES = ("adapter_config.json", "adapters.safetensors")
AVERAGED = "adapters_average"
ADAPTERS = ("adapters", "adapters_final", AVERAGED)
SNAPSHOTS = "snapshots"
_SHOWN = 3  # runs that an error names
_LONGEST = 100  # characters of a name that are compared
_OURS = (RUN_FILE, METRICS_FILE, LOCK_NAME, REQUEST_FILE, "checkpoints", "earlier", SNAPSHOTS, *ADAPTERS)


class RunDirectory:
    """A run on the disk, from `create` or `open`. Reading needs no lock; every method that writes needs `lock`."""

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path = Path(path)
        self.info = info
        self.checkpoints = Checkpoints(self.path / "checkpoints")
        self._metrics: MetricsWriter | None = None

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        config: Mapping[str, object],
        origins: Mapping[str, object],
        plan: Mapping[str, object],
        versions: Mapping[str, object],
        **more: object,
    ) -> RunDirectory:
        """Create the directory `path` with a ``run.json``; `more` are other fields of `RunInfo`.

        Raises `TakenError` when `path` exists and is not an empty directory, and `StorageError` when it cannot be
        written.
        """
        path = Path(path)
        info = RunInfo(
            config=without_permissions(config),
            origins=origins,
            plan=plan,
            versions=versions,
            **more,  # type: ignore[arg-type]
        )
        content = to_json(info)
        atomic.claim_directory(path, lambda aside: atomic.write_json(aside / RUN_FILE, content), _taken)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """The run in `path`. Raises `UserError` when there is none, or when its files cannot be trusted."""
        path = Path(path)
        with reading_errors(path):
            if not os.path.isdir(path):
                raise UsageError(f"There is no run in {path}: no such directory. {elsewhere(path)}")
            if RUN_FILE not in os.listdir(path):
                raise UsageError(f"There is no run in {path}: it has no {RUN_FILE}.{_run_around(path)}")
            _refuse_links(path)
        return cls(path, read_info(path / RUN_FILE))

    @property
    def name(self) -> str:
        """The name of the run, which is the last part of its path."""
        return self.path.resolve().name

    @property
    def adapters(self) -> Path:
        """``adapters/``, the adapter to use."""
        return self.path / "adapters"

    @property
    def final_adapters(self) -> Path:
        """``adapters_final/``, the adapter after the last update; see `write_adapter`."""
        return self.path / "adapters_final"

    @property
    def metrics(self) -> MetricsWriter:
        """The writer of ``metrics.jsonl``, opened when it is first used; only for the holder of the lock."""
        if self._metrics is None:
            self._metrics = MetricsWriter(self.path / METRICS_FILE)
        return self._metrics

    def read_metrics(self) -> list[Record]:
        """The records so far, also while another process writes them."""
        return read_metrics(self.path / METRICS_FILE)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process. Raises `UsageError` when another process holds it.

        The remains of interrupted writes are removed, and `info` is read again.
        """
        with RunLock(self.path):
            atomic.remove_temporaries(self.path)
            self.checkpoints.recover()
            self.info = read_info(self.path / RUN_FILE)
            try:
                yield
            finally:
                self.close()

    def update_info(self, **changes: object) -> None:
        """Change fields of `info` and write ``run.json``: ``update_info(status="finished", update=100)``."""
        self.info = dataclasses.replace(self.info, **changes)  # type: ignore[arg-type]
        atomic.write_json(self.path / RUN_FILE, to_json(self.info))

    def accept(self, request: Request, **changes: object) -> None:
        """Append `request` to those of ``run.json``, where a resume finds it; `changes` are as in `update_info`."""
        self.update_info(requests=(*self.info.requests, request), length=request.updates, **changes)

    def write_checkpoint(
        self, update: int, fill: Callable[[Path], None], *, info: Mapping[str, object] | None = None
    ) -> Path:
        """Write a checkpoint that records the length of ``metrics.jsonl``, so that `rewind` can go back to it.

        The metrics are flushed first: a checkpoint never counts a record that a power cut could still lose.
        """
        self.metrics.sync()
        noted = {**(info or {}), "metrics_position": self.metrics.position}
        return self.checkpoints.write(update, fill, info=noted)

    def rewind(self, checkpoint: Checkpoint | None) -> None:
        """Go back to `checkpoint` (None: the start) by removing later checkpoints and later metrics.

        In that order, so that a kill in between leaves every checkpoint with the metrics that it needs.
        """
        self.checkpoints.remove_after(-1 if checkpoint is None else checkpoint.update)
        if checkpoint is None:
            self.metrics.truncate_to(0)
            return
        position = checkpoint.info.get("metrics_position")
        self.metrics.rewind(position if isinstance(position, int) else -1, checkpoint.update)

    def write_adapter(self, fill: Callable[[Path], None], place: Path | None = None) -> Path:
        """Replace the files that `fill` writes in ``adapters/``, or another directory of adapters of the run.

        The directory stays usable meanwhile.
        """
        place = place or self.adapters
        if (
            place.parent != self.path
        ):  # the run's own directory is not made again: that it was removed is an error
            with atomic.storage_errors(place):
                place.parent.mkdir(exist_ok=True)
        return atomic.replace_directory(place, fill)

    def remove_final_adapter(self) -> None:
        """Remove ``adapters_final/``, which is no longer that of the last update."""
        if self.final_adapters.is_dir():
            atomic.remove_files(self.final_adapters, ADAPTER_FILES, leftovers="kept-adapters_final")

    def close(self) -> None:
        """Close the metrics; they are opened again when they are used."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None


def elsewhere(path: Path) -> str:
    """A hint about where the run may be: a bare name often refers to a run in `DEFAULT_ROOT`, or is misspelled."""
    if is_run(DEFAULT_ROOT / path):
        return f"Did you mean {shlex.quote(str(DEFAULT_ROOT / path))}?"
    runs = runs_near(path)
    if not runs:
        return f"`mlxsched runs {shlex.quote(str(path.parent))}` lists the runs there."
    names = difflib.get_close_matches(path.name[:_LONGEST], [run.name for run in runs], _SHOWN)
    shown = [run for run in runs if run.name in names] or runs[:_SHOWN]
    listed = ", ".join(shlex.quote(str(run)) for run in shown)
    folder = "" if runs[0].parent == DEFAULT_ROOT else f" {shlex.quote(str(runs[0].parent))}"
    return f"{'Similar' if names else 'The latest'} runs: {listed}. `mlxsched runs{folder}` lists all."


def runs_near(path: Path) -> list[Path]:
    """The runs in the directory of `path`, or else in `DEFAULT_ROOT`, the latest first."""
    for folder in (path.parent, DEFAULT_ROOT):
        with contextlib.suppress(OSError):  # a run was removed meanwhile
            if runs := runs_in(folder):
                return sorted(runs, key=lambda run: os.lstat(run / RUN_FILE).st_mtime, reverse=True)
    return []


def runs_in(folder: Path) -> list[Path]:
    """The runs directly in `folder`, in no order; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:  # tells directories from files without a call for each
            return [folder / one.name for one in entries if one.is_dir() and is_run(folder / one.name)]
    except OSError:
        return []


def _run_around(path: Path) -> str:
    """A hint for the path of a part of a run, such as its ``adapters`` or a checkpoint."""
    outer = next((folder for folder in path.resolve().parents if is_run(folder)), None)
    return f" It is a part of the run {os.path.relpath(outer)}: give that." if outer else ""


def is_run(path: Path) -> bool:
    """Whether the directory `path` holds a run."""
    return os.path.lexists(Path(path) / RUN_FILE)


def split_adapter(path: Path) -> tuple[Path, Path | None]:
    """The run that `path` names, and one of its adapters where `path` is the directory of that.

    ``runs/a/snapshots/000100`` gives ``runs/a`` and itself; any other path is the run's, with no adapter in particular.
    Raises `UserError` for an adapter that is a symbolic link.
    """
    place = Path(path).absolute()
    run = next((above for above in (place.parent, place.parent.parent) if is_run(above)), None)
    if run is None or is_run(place) or not os.path.lexists(place / ADAPTER_FILES[1]):
        return path, None
    _refuse_link(place)
    _refuse_link(place / ADAPTER_FILES[1])
    return run, place


def free_space_check(path: Path, needed: int) -> None:
    """Raise `StorageError` when the disk that will hold `path` has less than `needed` bytes free.

    `path` need not exist yet: the nearest existing directory above it decides.
    """
    place = Path(path).absolute()
    while not os.path.isdir(place):
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise atomic.StorageError(
            f"The run needs about {needed / 1e6:,.1f} MB on the disk of {path}; {free / 1e6:,.1f} MB are free. "
            "Free some space, lower --keep-last, or choose another disk with --run-dir.",
            errno.ENOSPC,
        )


def _refuse_links(run: Path) -> None:
    """Refuse a link in place of one of our files; those in checkpoints are checked when one is loaded."""
    ours = [run / name for name in _OURS]
    folders = [run / name for name in (*ADAPTERS, SNAPSHOTS) if (run / name).is_dir()]
    inside = [path for folder in folders for path in folder.iterdir()]
    for path in [*ours, *inside]:
        _refuse_link(path)


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise UserError(f"{path} is a symbolic link, which is not allowed in a run directory. Remove it.")


def _taken(path: Path) -> str:
    if is_run(path):
        return f"There is a run in {path} already. Continue it: `mlxsched resume {path}`; or choose another name."
    return f"{path} exists and is not an empty directory. Choose another --run-dir."
