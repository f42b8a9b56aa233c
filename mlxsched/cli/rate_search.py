"""The search for the peak of a planned run, with its plan, its progress and its stored result."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from mlxsched.cli.output import note
from mlxsched.errors import Stopped

if TYPE_CHECKING:
    from mlxsched.experiments.rate_finder.result import Found
    from mlxsched.training.session import Session


def found_rate(session: Session, budget: str | None, *, plain: bool, again: bool = False) -> Found:
    """The stored result for ``session``, or that of a search now."""
    from mlxsched.cli.lr_find_view import SearchDisplay, show_search
    from mlxsched.experiments.rate_finder.budget import parse_budget, usual_budget
    from mlxsched.experiments.rate_finder.finder import Search
    from mlxsched.experiments.rate_finder.store import Store
    from mlxsched.platform.paths import cache_home

    updates = session.plan.updates
    store = Store(cache_home(), session)
    stored = None if again or budget else store.load()
    if stored is not None:
        note("Using the stored result for these settings; --again searches again.")
        return stored
    differing = [] if again or budget else store.differences()
    if differing:
        note(f"No stored result for these settings; the nearest differs in {', '.join(differing)}.")
    search = Search(session, parse_budget(budget, updates) if budget else usual_budget(updates))
    show_search(search)
    try:
        with SearchDisplay(plain=plain) as display:
            found = search.run(display)
    except KeyboardInterrupt:
        raise Stopped("Stopped; nothing was changed or stored.", signal.SIGINT) from None
    store.save(found)
    return found
