"""A comparison over a grid: planned, trained trial by trial, and stored on disk so that it can be resumed.

::

    DIRECTORY/compare.json    the variants, peaks and seeds, and which model and data they are trained with
    DIRECTORY/results.json    the loss of each finished trial

Trials have no directories. An interrupted trial starts again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlxsched.config.schema import RunConfig
from mlxsched.data import Dataset
from mlxsched.errors import ConfigError, ScheduleError, UsageError
from mlxsched.experiments.grid import (
    MOST_TRIALS,
    Cell,
    Row,
    Trial,
    Variant,
    next_cells,
    updates_of,
)
from mlxsched.experiments.refusals import refuse_settings
from mlxsched.experiments.trials import Trials
from mlxsched.model.load import LoadedModel, model_fingerprint
from mlxsched.planning.length import plan_length
from mlxsched.planning.schedule import ResolvedSchedule, ScheduleLike, resolve_schedule
from mlxsched.runs import atomic
from mlxsched.runs.events import Sink
from mlxsched.runs.info import without_permissions
from mlxsched.runs.json_file import finite_number, is_count, read_object
from mlxsched.runs.lock import RunLock
from mlxsched.runs.store import comparison_directory
from mlxsched.schedules.controllers import Controller
from mlxsched.training.policies.host import limits
from mlxsched.training.session import Session, prepare, training_rows

FILE = "compare.json"
RESULTS = "results.json"
KIND = "grid"


@dataclass(frozen=True)
class Settings:
    """What is compared, as ``compare.json`` keeps it."""

    variants: tuple[Variant, ...]
    peaks: tuple[float, ...]
    seeds: tuple[int, ...]
    halving: bool = False


@dataclass(frozen=True)
class GridComparison:
    """A planned comparison.

    Args:
        path: its directory.
        settings: what is compared.
        rows: the peaks and the length of each variant's trials.
        loaded: the model that all trials share.
        dataset: the rows that all trials share.
        cache: keeps tokenized rows and frozen-prefix activations for later runs.
    """

    path: Path
    settings: Settings
    rows: tuple[Row, ...]
    loaded: LoadedModel
    dataset: Dataset
    cache: Path | None = None

    def variant(self, name: str) -> Variant:
        """The variant called ``name``."""
        return next(one for one in self.settings.variants if one.name == name)

    @property
    def updates(self) -> int:
        """Updates of all trials together."""
        return updates_of(self.rows, self.settings.seeds, self.settings.halving)

    def next_cells(self, done: Mapping[Cell, Trial]) -> list[Cell]:
        """The trials that can be made now."""
        return next_cells(self.rows, self.settings.seeds, self.settings.halving, done)

    def schedule(self, cell: Cell) -> ScheduleLike:
        """The schedule of a trial: a shorter one of `halving` goes through the whole shape at a higher speed."""
        variant = self.variant(cell.variant)
        whole = next(row.updates for row in self.rows if row.variant == cell.variant)
        schedule = _resolved(variant, cell.peak, whole).schedule
        if cell.updates == whole:
            return schedule
        return lambda update: schedule(update * whole // cell.updates)

    def session(self, cell: Cell) -> Session:
        """The session of a trial's setting and seed."""
        variant = self.variant(cell.variant)
        config = variant.config.model_copy(update={"seed": cell.seed})
        return prepare(config, variant.origins, loaded=self.loaded, dataset=self.dataset, cache=self.cache)

    @property
    def identity(self) -> dict[str, str | None]:
        """The facts that must not change during a comparison."""
        return {"data": self.dataset.fingerprint, "model": model_fingerprint(self.loaded.path)}


def plan_grid(
    path: Path,
    settings: Settings,
    *,
    cache: Path | None = None,
    on_load: Callable[[str], None] = lambda model: None,
) -> GridComparison:
    """Load model and data, and find the length and the peaks of each variant's trials.

    ``on_load`` receives the name of the model before it is loaded, after all settings are validated.

    Raises:
        UserError: a setting does not fit.
    """
    for variant in settings.variants:
        why = "a comparison has one budget"
        refuse_settings(variant.config, variant.origins, ("max_time", "patience"), why)
        why = "a comparison judges the end of each trial"
        refuse_settings(variant.config, variant.origins, ("until_plateau", "average"), why)
    first = settings.variants[0]
    on_load(first.config.model)
    session = prepare(first.config, first.origins, cache=cache)
    rows = tuple(
        _row(variant, settings, len(training_rows(session.dataset))) for variant in settings.variants
    )
    if sum(len(row.peaks) for row in rows) * len(settings.seeds) > MOST_TRIALS:
        raise UsageError(
            f"that are more than {MOST_TRIALS:,} trials. Compare fewer variants, peaks or seeds."
        )
    return GridComparison(path, settings, rows, session.loaded, session.dataset, cache)


def _row(variant: Variant, settings: Settings, n_rows: int) -> Row:
    updates = plan_length(variant.config, n_rows, variant.origins).updates
    peaks: dict[str, float] = {}
    for peak in settings.peaks:
        try:
            resolved = _resolved(variant, peak, updates)
        except (ConfigError, ScheduleError) as error:
            raise UsageError(f"{variant.name}: {error}") from error
        if settings.halving and isinstance(resolved.schedule, Controller):
            raise UsageError(
                f"{variant.name} follows the validation loss, which --halving can't shorten. Leave one out."
            )
        peaks.setdefault(repr(resolved.schedule), peak)
    if len(peaks) < len(settings.peaks):  # a spec with rates of its own is the same schedule at each peak
        return Row(variant.name, variant.setting, (resolved.peak,), updates)
    return Row(variant.name, variant.setting, settings.peaks, updates)


def _resolved(variant: Variant, peak: float, updates: int) -> ResolvedSchedule:
    config = variant.config.model_copy(update={"learning_rate": peak})
    return resolve_schedule(config, variant.origins, updates)


# On the disk


def save_settings(comparison: GridComparison) -> None:
    """Create the directory of a new comparison; raises `TakenError`."""
    comparison_directory(comparison.path, FILE, _record(comparison))


def _record(comparison: GridComparison) -> dict[str, Any]:
    settings = comparison.settings
    variants = [
        {**asdict(replace(one, config=None)), "config": without_permissions(one.config.to_dict())}  # type: ignore[arg-type]
        for one in settings.variants
    ]
    return {
        "format": 1,
        "kind": KIND,
        "variants": variants,
        "peaks": list(settings.peaks),
        "seeds": list(settings.seeds),
        "halving": settings.halving,
        **comparison.identity,
    }


def is_grid(path: Path) -> bool:
    """Whether the comparison in ``path`` is one over a grid."""
    return (path / FILE).is_file() and read_object(path / FILE).get("kind") == KIND


def read_settings(path: Path, *, trust_remote_code: bool = False) -> Settings:
    """The settings of the comparison in ``path``.

    Raises:
        UserError: the file is damaged.
    """
    saved: dict[str, Any] = read_object(path / FILE)
    try:
        variants = tuple(_variant(one, trust_remote_code) for one in saved["variants"])
        peaks = tuple(float(peak) for peak in saved["peaks"])
        seeds = tuple(int(seed) for seed in saved["seeds"])
        if not (variants and peaks and seeds and min(peaks) > 0 and min(seeds) >= 0):
            raise ValueError("a list is empty")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path / FILE} is damaged or not from this version of mlxsched: {error}") from error
    return Settings(variants, peaks, seeds, bool(saved.get("halving")))


def _variant(saved: dict[str, Any], trust_remote_code: bool) -> Variant:
    values: dict[str, Any] = {**without_permissions(saved["config"]), "trust_remote_code": trust_remote_code}
    origins = {str(key): str(value) for key, value in saved["origins"].items()}
    return Variant(str(saved["name"]), RunConfig(**values), origins, dict(saved["changes"]))


def _extend_settings(comparison: GridComparison) -> None:
    """Write the settings of a resumed comparison, possibly with more peaks and seeds; its lock must be held.

    Additions that another process made since this one read the settings are kept.

    Raises:
        UsageError: the model or the data is no longer the one that the finished trials saw.
    """
    before: dict[str, Any] = read_object(comparison.path / FILE)
    changed = [key for key, value in comparison.identity.items() if before.get(key) != value]
    if changed:
        raise UsageError(
            f"the {' and the '.join(changed)} changed since {comparison.path} began, so its results would not be "
            "comparable. Undo the change, or start another comparison."
        )
    record = _record(comparison)
    record["peaks"] = sorted({*before["peaks"], *record["peaks"]})
    record["seeds"] = list(dict.fromkeys([*before["seeds"], *record["seeds"]]))
    atomic.write_json(comparison.path / FILE, record)


def read_results(path: Path) -> dict[Cell, Trial]:
    """The finished trials of the comparison in ``path``."""
    if not (path / RESULTS).is_file():
        return {}
    saved: Any = read_object(path / RESULTS).get("trials")
    try:
        trials = [_trial(one) for one in saved]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path / RESULTS} is damaged: {error}. Remove it to train again.") from error
    return {trial.cell: trial for trial in trials}


def _trial(saved: dict[str, Any]) -> Trial:
    seed, updates = saved["seed"], saved["updates"]
    if not (is_count(seed) and is_count(updates)):
        raise ValueError(f"seed {seed!r} and updates {updates!r} must be counts")
    cell = Cell(str(saved["variant"]), float(saved["peak"]), seed, updates)
    return Trial(cell, finite_number(saved["loss"]), finite_number(saved.get("seconds")) or 0.0)


def _write_results(path: Path, done: Mapping[Cell, Trial]) -> None:
    trials = [{**asdict(one.cell), "loss": one.loss, "seconds": one.seconds} for one in done.values()]
    atomic.write_json(path / RESULTS, {"format": 1, "trials": trials})


# Training


def run_grid(
    comparison: GridComparison,
    tell: Callable[[Trial], None] = lambda trial: None,
    emit: Sink = lambda event: None,
    stop_signal: Callable[[], int] = lambda: 0,
) -> dict[Cell, Trial]:
    """Make the trials that are not done yet.

    Args:
        comparison: its directory exists.
        tell: receives each finished trial.
        emit: receives the events of the trials.
        stop_signal: the number of a signal that came, 0 for none.

    Returns:
        All finished trials, those of earlier calls included.

    Raises:
        Stopped: a signal came; finished trials are kept.
        UsageError: another process makes the trials, or the model or the data changed; nothing is written then.
    """
    with RunLock(comparison.path), limits(comparison.settings.variants[0].config):
        _extend_settings(comparison)  # not before: a comparison that another process makes must not change
        done = read_results(comparison.path)
        trials, key = None, None
        while cells := comparison.next_cells(done):
            cell = cells[0]
            wanted = (comparison.variant(cell.variant).setting, cell.seed)
            if trials is None or key != wanted:
                trials, key = Trials(comparison.session(cell), emit, stop_signal), wanted
            started = time.monotonic()
            loss = trials.loss(comparison.schedule(cell), cell.updates)
            done[cell] = Trial(cell, loss, time.monotonic() - started)
            _write_results(comparison.path, done)
            tell(done[cell])
    return done
