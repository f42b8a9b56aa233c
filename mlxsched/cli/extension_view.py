"""Shows what an extension or a cooldown will do, then does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlxsched.cli.output import print_json, table
from mlxsched.cli.workers import meet
from mlxsched.text import clock, counted, rounded

if TYPE_CHECKING:
    from mlxsched.runs.directory import RunDirectory
    from mlxsched.training.extension import Extension
    from mlxsched.training.session import Session
    from mlxsched.training.workers.world import World


def carry_out(
    session: Session, run: RunDirectory, extension: Extension, options: Mapping[str, Any], world: World
) -> None:
    """Show what will be done, then record it and train; ``options`` are `resume_options` and ``dry_run``."""
    from mlxsched.cli.train import train_and_tell
    from mlxsched.training.extension import record

    dry_run, as_json = options["dry_run"], options["as_json"]
    if dry_run and as_json:
        print_json(extension_json(session, run, extension))
        return
    lines = list(extension_lines(session, run, extension))
    table(lines, title="Cooldown" if extension.how == "cooldown" else "Extension", stderr=not dry_run)
    if dry_run:
        return
    with run.lock():
        record(run, extension)
    train_and_tell(meet(session, world), run, plain=options["plain"], as_json=as_json, resume=True)


def extension_lines(session: Session, run: RunDirectory, extension: Extension) -> Iterator[tuple[str, str]]:
    """The rows of the table."""
    updates, per_epoch = extension.horizon.updates, session.plan.updates_per_epoch
    yield "from", _start(extension)
    yield (
        "length",
        f"{counted(updates, 'update')}, {rounded(updates / per_epoch, 3)} epochs; {extension.left:,} to go",
    )
    yield "learning rate", _rates(extension)
    if extension.seconds is not None:
        yield "time", f"about {clock(extension.seconds)}, at the speed so far"
    yield "result", _result(session, extension)
    if extension.replaces:
        yield "kept", f"the run as it is now, with its adapter, in {run.path}/earlier"


def _start(extension: Extension) -> str:
    at, made = extension.request.at, extension.made
    if at == made:
        return f"update {at:,}, the last one"
    again = counted(made - at, "update")
    before = ", before the cooldown" if extension.horizon.trunk is not None else ""
    return f"update {at:,} of {made:,}{before}; {again} will be repeated at other rates"


def _rates(extension: Extension) -> str:
    at, updates = extension.request.at, extension.horizon.updates
    first, last = extension.rate(at), extension.rate(updates - 1)
    end = f"{last:.3g} in the last update"
    peak = max(range(at, updates), key=extension.rate)
    if extension.rate(peak) > first:
        return f"from {first:.3g} up to {extension.rate(peak):.3g} at update {peak:,}, then down to {end}"
    trunk = extension.horizon.trunk
    if extension.how == "on" and trunk is not None:
        return f"{first:.3g} up to update {trunk:,}, then down to {end}"
    return f"{first:.3g} in all of them" if first == last else f"from {first:.3g} down to {end}"


def _result(session: Session, extension: Extension) -> str:
    updates = counted(extension.horizon.updates, "update")
    if extension.exact:
        with_warmup = f" with a warmup of {extension.warmup:,}" if extension.warmup else ""
        tuned = ", with the same tuning choice" if session.config.tune else ""
        return f"bit-identical to a run planned for {updates}{with_warmup}{tuned}"
    if extension.how in ("on", "cooldown"):
        return "a run with a complete schedule"
    start = extension.rate(extension.request.at - 1)
    if extension.how == "stretch":
        return f"differs from a run planned for {updates}, whose rate would not be {start:.3g} by now"
    highest = max(map(extension.rate, range(extension.request.at, extension.horizon.updates)))
    # After a run that was cut off at a high rate, the peak of the new part is no higher.
    then = "rises again" if highest > start * (1 + 1e-9) else "falls further"
    return f"differs from a run planned for {updates}: the rate had decayed to {start:.3g} and {then}"


def extension_json(session: Session, run: RunDirectory, extension: Extension) -> dict[str, Any]:
    """What will be done, as plain data."""
    at, updates = extension.request.at, extension.horizon.updates
    return {
        "run": str(run.path),
        "kind": extension.request.kind,
        "how": extension.how,
        "exact": extension.exact,
        "made": extension.made,
        "at": at,
        "redone": extension.made - at,
        "updates": updates,
        "epochs": updates / session.plan.updates_per_epoch,
        "left": extension.left,
        "first_rate": extension.rate(at),
        "highest_rate": max(map(extension.rate, range(at, updates))),
        "last_rate": extension.rate(updates - 1),
        "schedule": extension.request.revisions[-1]["schedule"] or session.plan.schedule,
        "seconds": extension.seconds,
        "keeps_earlier": extension.replaces,
    }
