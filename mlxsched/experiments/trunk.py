"""One trunk, several lengths: a constant-rate run that is trained once and cooled down at each of several budgets.

Up to its decay, a WSD run does not depend on its length. So runs of several lengths share their beginning, and each
costs only its cooldown (Hägele et al., 2024, arXiv 2405.18392)::

    DIRECTORY/compare.json       the settings and the budgets
    DIRECTORY/trunk/             the run at the constant rate
    DIRECTORY/points/000080/     its checkpoint where a branch begins
    DIRECTORY/000100/            the run of 100 updates, from there to its end

Everything is resumable: finished runs are kept, and unfinished ones continue from their last checkpoint.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxsched.config.layers import LENGTHS
from mlxsched.config.schema import RunConfig
from mlxsched.errors import UsageError
from mlxsched.experiments.refusals import refuse_settings
from mlxsched.runs import atomic
from mlxsched.runs.directory import METRICS_FILE, RunDirectory, is_run
from mlxsched.runs.info import without_permissions
from mlxsched.runs.json_file import read_object
from mlxsched.runs.store import comparison_directory
from mlxsched.schedules import wsd
from mlxsched.training.policies.base import Action, Policy, Save
from mlxsched.training.progress import Progress
from mlxsched.training.run import create_run
from mlxsched.training.session import Session, prepare

FILE = "compare.json"
MOST_BRANCHES = 50


@dataclass(frozen=True)
class Branch:
    """A run of ``budget`` updates that leaves the trunk after ``start``."""

    budget: int
    start: int

    @property
    def cooldown(self) -> int:
        """Updates after the trunk."""
        return self.budget - self.start


@dataclass(frozen=True)
class Comparison:
    """A trunk and its branches, planned.

    Args:
        path: where all of it goes.
        config: the settings of every run; its length and schedule are replaced.
        origins: where each setting comes from.
        session: the longest run, whose model and data all of them share.
        branches: the shortest first.
    """

    path: Path
    config: RunConfig
    origins: Mapping[str, str]
    session: Session
    branches: tuple[Branch, ...]

    @property
    def trunk_updates(self) -> int:
        """Updates of the trunk: up to the start of the last branch."""
        return max(branch.start for branch in self.branches)

    def trunk_session(self) -> Session:
        """The run at the constant rate."""
        return self._session(self.trunk_updates, {"name": "constant"})

    def branch_session(self, branch: Branch) -> Session:
        """A whole WSD run, of which the trunk has made the first ``branch.start`` updates."""
        return self._session(branch.budget, {**_described(self.session), "decay": branch.cooldown})

    def updates_spent(self, branch: Branch) -> int:
        """Updates for this length and all shorter ones, the trunk counted once."""
        shorter = [one for one in self.branches if one.budget <= branch.budget]
        return max(one.start for one in shorter) + sum(one.cooldown for one in shorter)

    def _session(self, updates: int, schedule: dict[str, Any]) -> Session:
        plan = self.session.plan
        changes = {
            **dict.fromkeys(LENGTHS),
            "steps": updates,
            "schedule": schedule,
            "warmup": plan.warmup,
            "steps_per_eval": plan.steps_per_eval,
            "adapter_path": None,  # all runs would write there
        }
        config = self.session.config.model_copy(update=changes)
        origins = {**self.origins, **dict.fromkeys(changes, "compare --trunk")}
        return prepare(
            config,
            origins,
            loaded=self.session.loaded,
            dataset=self.session.dataset,
            cache=self.session.cache,
        )


@dataclass(frozen=True)
class Result:
    """How a branch ended: its validation loss, that of its best adapter, and the updates spent so far."""

    budget: int
    cooldown: int
    updates_spent: int
    loss: float | None
    best_loss: float | None
    run: Path


def plan_comparison(
    path: Path,
    config: RunConfig,
    origins: Mapping[str, str],
    budgets: str,
    *,
    cache: Path | None = None,
    on_load: Callable[[str], None] = lambda model: None,
) -> Comparison:
    """Load model and data, and plan the trunk and its branches.

    Args:
        path: the directory of the comparison.
        config: the settings; the schedule must be ``wsd`` where one was chosen.
        origins: where each setting comes from.
        budgets: lengths of the branches, as `parse_budgets` reads them.
        cache: keeps tokenized rows for later runs.
        on_load: receives the name of the model before it is loaded, after all settings are validated.

    Raises:
        UsageError: a budget does not fit, or the schedule is another one.
    """
    why = "--trunk has its lengths from --budgets"
    refuse_settings(config, origins, ("max_time", "patience"), why)
    if origins.get("schedule", "default") == "default" and config.lr_schedule is None:
        config = config.model_copy(update={"schedule": "wsd"})
    on_load(config.model)
    session = prepare(config, origins, cache=cache)
    lengths = parse_budgets(budgets, session.plan.updates)
    if lengths[-1] != session.plan.updates:  # the longest branch decides the warmup and the evaluations
        config = config.model_copy(update={**dict.fromkeys(LENGTHS), "steps": lengths[-1]})
        session = prepare(config, origins, loaded=session.loaded, dataset=session.dataset, cache=cache)
    return Comparison(path, config, origins, session, branches_of(session, lengths))


def branches_of(session: Session, budgets: Iterable[int]) -> tuple[Branch, ...]:
    """The branches of a WSD schedule; the share of the decay is the same in each."""
    schedule = session.schedule
    if not isinstance(schedule, wsd):
        raise UsageError(
            "--trunk needs the schedule wsd, whose beginning does not depend on its length. Give --schedule wsd, or "
            '"wsd(decay=0.1)" for another share of cooldown.'
        )
    share = schedule.decay_steps / schedule.steps
    branches = tuple(Branch(budget, budget - max(round(share * budget), 1)) for budget in budgets)
    if branches[0].start < session.plan.warmup:
        raise UsageError(
            f"a budget of {branches[0].budget} updates with a cooldown of {branches[0].cooldown} leaves no room for a "
            f"warmup of {session.plan.warmup}. Raise the smallest of --budgets, or lower --warmup."
        )
    return branches


def parse_budgets(text: str, updates: int) -> list[int]:
    """Lengths in updates, ascending: whole numbers are updates, numbers up to 1 with a point shares of ``updates``.

    >>> parse_budgets("0.25,0.5,1.0", 400), parse_budgets("100, 50", 400)
    ([100, 200, 400], [50, 100])
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,9}|[01]?\.[0-9]{1,6}|[01]\.", part) for part in parts):
        raise UsageError(
            f"--budgets {text!r} is not a list of updates or shares. Write 100,200,400 or 0.25,0.5,1.0."
        )
    found = {round(float(part) * updates) if "." in part else int(part) for part in parts}
    if min(found) < 2 or len(found) > MOST_BRANCHES or any("." in part and float(part) > 1 for part in parts):
        raise UsageError(
            f"--budgets {text!r} must be at most {MOST_BRANCHES} lengths of 2 updates or more, or shares up to 1.0."
        )
    return sorted(found)


def save_settings(comparison: Comparison) -> None:
    """Create the directory, with what `saved_settings` needs to go on; raises `TakenError`."""
    settings = {
        "format": 1,
        "config": without_permissions(comparison.config.to_dict()),
        "origins": dict(comparison.origins),
        "budgets": [branch.budget for branch in comparison.branches],
    }
    comparison_directory(comparison.path, FILE, settings)


def saved_settings(path: Path) -> tuple[RunConfig, dict[str, str], str]:
    """Config, origins and budgets of the comparison in ``path``."""
    if not (path / FILE).is_file():
        raise UsageError(f"There is no comparison in {path}: it has no {FILE}.")
    saved = read_object(path / FILE)
    config: Any = saved.get("config")
    origins, budgets = saved.get("origins"), saved.get("budgets")
    try:
        if not isinstance(config, dict) or not isinstance(origins, dict) or not isinstance(budgets, list):
            raise ValueError("a key is missing")
        values: Any = without_permissions(config)
        read = RunConfig(**values)
    except ValueError as error:
        raise UsageError(f"{path / FILE} is damaged or not from this version of mlxsched: {error}") from error
    return read, {key: str(value) for key, value in origins.items()}, ",".join(map(str, budgets))


class LeaveCheckpoints(Policy):
    """Leave a copy of the checkpoint where each branch begins; `Checkpoints.prune` will remove the original.

    Asked before `Evaluation`: at its end the trunk is evaluated where a longer run would not be.
    """

    def __init__(self, trunk: RunDirectory, points: Path, starts: Iterable[int]) -> None:
        self._trunk, self._points, self._starts = trunk, points, set(starts)

    def between_updates(self, progress: Progress, *, done: bool) -> Iterator[Action]:
        point = point_of(self._points, progress.update)
        if progress.update not in self._starts or point.is_dir():
            return
        if progress.saved_update != progress.update:
            yield Save()
        with atomic.storage_errors(point):
            self._points.mkdir(exist_ok=True)
        atomic.new_directory(point, lambda aside: self._copy(progress.update, aside))

    def _copy(self, update: int, aside: Path) -> None:
        shutil.copytree(self._trunk.checkpoints.path(update), aside / "checkpoint")
        if self._trunk.adapters.is_dir():
            shutil.copytree(self._trunk.adapters, aside / "adapters")
        shutil.copyfile(self._trunk.path / METRICS_FILE, aside / METRICS_FILE)


def point_of(points: Path, update: int) -> Path:
    """Where the checkpoint of the trunk after ``update`` updates is."""
    return points / f"{update:06d}"


Train = Callable[[Session, RunDirectory, bool, list[Policy]], Progress]
"""Trains a session into a run, new or resumed, with more policies: `mlxsched.training.run.execute` with a display."""


def run_comparison(comparison: Comparison, train: Train, tell: Callable[[str], None]) -> list[Result]:
    """Train what is not finished yet, the trunk first; ``tell`` receives a line before each run."""
    points = comparison.path / "points"
    trunk_path = comparison.path / "trunk"
    if not _is_finished(trunk_path):
        tell(f"trunk: {comparison.trunk_updates} updates at the constant rate")
        session = comparison.trunk_session()
        trunk, resume = _opened(trunk_path, session)
        starts = [branch.start for branch in comparison.branches]
        train(session, trunk, resume, [LeaveCheckpoints(trunk, points, starts)])
    for number, branch in enumerate(comparison.branches, start=1):
        path = comparison.path / f"{branch.budget:06d}"
        if not _is_finished(path):
            tell(
                f"branch {number} of {len(comparison.branches)}: {branch.budget} updates, the last {branch.cooldown} of them new"
            )
            session = comparison.branch_session(branch)
            run = _branched(path, session, point_of(points, branch.start), branch.start)
            train(session, run, True, [])
    return results(comparison)


def results(comparison: Comparison) -> list[Result]:
    """The results of the branches of a comparison."""
    found = []
    for branch in comparison.branches:
        run = RunDirectory.open(comparison.path / f"{branch.budget:06d}")
        losses = [record["loss"] for record in run.read_metrics() if record.get("kind") == "eval"]
        best = (run.info.best or {}).get("loss")
        found.append(
            Result(
                budget=branch.budget,
                cooldown=branch.cooldown,
                updates_spent=comparison.updates_spent(branch),
                loss=_number(losses[-1]) if losses else None,
                best_loss=_number(best),
                run=run.path,
            )
        )
    return found


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _is_finished(path: Path) -> bool:
    return is_run(path) and RunDirectory.open(path).info.status == "finished"


def _opened(path: Path, session: Session) -> tuple[RunDirectory, bool]:
    """The run in ``path``, which is created if needed, and whether it was there."""
    return (RunDirectory.open(path), True) if is_run(path) else (create_run(session, path), False)


def _branched(path: Path, session: Session, point: Path, start: int) -> RunDirectory:
    """The run of a branch, with the trunk's state; the checkpoint is written last, so a kill leaves no partial
    state."""
    run, _ = _opened(path, session)
    if run.checkpoints.updates():
        return run
    if (point / "adapters").is_dir():
        run.write_adapter(lambda aside: _copy_files(point / "adapters", aside))
    shutil.copyfile(point / METRICS_FILE, run.path / METRICS_FILE)
    with atomic.storage_errors(run.path):
        run.checkpoints.directory.mkdir(exist_ok=True)
    atomic.new_directory(run.checkpoints.path(start), lambda aside: _copy_files(point / "checkpoint", aside))
    return run


def _copy_files(source: Path, target: Path) -> None:
    for file in sorted(source.iterdir()):
        shutil.copyfile(file, target / file.name)


def _described(session: Session) -> dict[str, Any]:
    """The arguments of the session's schedule that do not depend on the length of the run."""
    values = session.plan.schedule
    return {key: values[key] for key in ("name", "end", "shape", "warmup_shape")}
