"""``mlxsched train --learning-rate auto``: the run at the peak that a search found for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlxsched.cli.output import note, warn
from mlxsched.errors import RunError, UsageError

if TYPE_CHECKING:
    from mlxsched.experiments.rate_finder.result import Found
    from mlxsched.training.session import Session

ORIGIN = "lr-find"  # of the learning rate, in the plan and in run.json


def takes_auto(flags: dict[str, Any]) -> bool:
    """Whether ``--learning-rate auto`` was given; the word is taken out of ``flags``, where only a number fits."""
    auto = str(flags["learning_rate"]).lower() == "auto"
    if auto:
        flags["learning_rate"] = None
    return auto


def at_found_rate(session: Session, *, search: bool, plain: bool = False) -> Session:
    """``session`` planned again with its stored peak or, with ``search``, with the peak that a search finds."""
    from mlxsched.cli.lr_find_view import rate_text
    from mlxsched.training.session import prepare

    _refuse_own_peak(session)
    found = _found(session, search, plain)
    if found.suggestion is None:
        raise RunError(
            f"no learning rate was found: {found.reason}. Search with `mlxsched lr-find --again`, the same flags and a "
            "larger --budget, or give --learning-rate a number."
        )
    if not found.conclusive:
        warn(f"the search was inconclusive: {found.reason}.")
    limit = (
        "" if session.config.max_time is None else " The time limit begins now: the search does not count."
    )
    note(f"Learning rate: {rate_text(found.suggestion)}, found by lr-find.{limit}")
    config = session.config.model_copy(update={"learning_rate": found.suggestion})
    origins = {**session.origins, "learning_rate": ORIGIN}
    return prepare(config, origins, loaded=session.loaded, dataset=session.dataset, cache=session.cache)


def _found(session: Session, search: bool, plain: bool) -> Found:
    from mlxsched.cli.rate_search import found_rate
    from mlxsched.experiments.rate_finder.store import Store
    from mlxsched.platform.paths import cache_home

    if search:
        return found_rate(session, None, plain=plain)
    store = Store(cache_home(), session)
    stored = store.load()
    if stored is None:
        found = store.differences()
        nearest = f" The nearest stored search differs in {', '.join(found)}." if found else ""
        raise UsageError(
            f"a plan trains nothing, and there is no stored rate for these settings.{nearest} Run `mlxsched lr-find` "
            "with the same flags first."
        )
    return stored


def _refuse_own_peak(session: Session) -> None:
    """Refuse a schedule with its own peak before anything slow starts."""
    from mlxsched.planning.schedule import resolve_schedule

    config = session.config
    other = config.model_copy(update={"learning_rate": 2 * config.learning_rate})
    if resolve_schedule(other, session.origins, session.plan.updates).peak == session.plan.peak:
        raise UsageError(
            "the schedule has a peak of its own, so --learning-rate auto would change nothing. Leave the peak out of the "
            "schedule."
        )
