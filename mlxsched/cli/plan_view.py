"""How a plan is shown: a table, a small chart of the schedule, notes and warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from mlxsched.cli.output import console, note, picture, table, warn
from mlxsched.text import about, clock, counted, rounded, short_time

if TYPE_CHECKING:
    from mlxsched.config import RunConfig
    from mlxsched.data.batching.sharing import Sharing
    from mlxsched.planning.plan import Plan
    from mlxsched.training.estimate import Estimate
    from mlxsched.training.session import Session

Line = tuple[str, str]
PICTURE_WIDTHS = (40, 60)  # fewer columns show no curve, and more of them nothing more


def show_plan(session: Session, *, stderr: bool, expected: Estimate | None = None) -> None:
    """Print the plan, with its estimated time if it has one; its notes and warnings always go to stderr."""
    lines = list(plan_lines(session))
    if expected is not None:
        lines.append(("time", _time(expected)))
    table(lines, title="Plan", stderr=stderr)
    drawn = schedule_picture(session, console(stderr=stderr).width)
    if drawn:
        picture(drawn + "\n", stderr=stderr)
    for one in session.plan.findings:
        if one.severity == "note" and one.code != "warmup_shortened":  # part of the table
            note(f"Note: {one}.")
    for text in session.plan.warnings:
        warn(f"{text}.")


def plan_lines(session: Session) -> Iterator[Line]:
    """The rows of the table."""
    plan, config = session.plan, session.config
    share = plan.trainable / max(plan.parameters, 1)
    yield (
        "model",
        f"{config.model}: {_count(plan.parameters)} parameters, {_count(plan.trainable)} trained ({share:.1%})",
    )
    yield "training", _training(session)
    data = config.data if config.hf_dataset is None else "hf_dataset"
    yield (
        "data",
        f"{data}: {counted(plan.rows, 'row')} for training, {plan.valid_rows:,} for validation, {plan.test_rows:,} for the test",
    )
    scored = session.train_rows.scored
    counted_as = f", which count as {plan.targets:,}" if plan.targets != scored else ""
    yield (
        "tokens",
        f"{plan.tokens:,} per epoch, {scored:,} of them targets ({scored / plan.tokens:.0%}){counted_as}",
    )
    yield (
        "length",
        f"{'assumed: ' if plan.assumed else ''}{counted(plan.updates, 'update')} of {counted(plan.batch_size, 'row')}{_iterations(config)}: "
        f"{counted(plan.epochs, 'epoch')} of {plan.updates_per_epoch:,}"
        + (f"; rows grouped by length within {plan.length_window} updates" if plan.length_window > 1 else ""),
    )
    if plan.max_time is not None:
        yield "time", _time_limit(plan)
    if config.until_plateau:
        yield "plateau", "cools down and ends early once the validation loss has stopped improving"
    yield "learning rate", _rates(session)
    yield (
        "evaluation",
        f"{_every(plan.steps_per_eval, plan.updates, 'before and after the run')}; a checkpoint {_every(plan.save_every, plan.updates, 'at the end')}",
    )
    yield "micro-batches", _micro_batches(session)
    yield "memory", _memory(session)


def _iterations(config: RunConfig) -> str:
    """The iterations that ``iters`` counts, where an update takes several."""
    if config.iters is None or config.grad_accumulation_steps == 1:
        return ""
    return f" ({counted(config.iters, 'iteration')} of {counted(config.batch_size, 'row')})"


def _every(interval: int, updates: int, longer: str) -> str:
    """The interval, or ``longer`` if the run has no more updates than it."""
    return f"every {counted(interval, 'update')}" if interval < updates else longer


def _time_limit(plan: Plan) -> str:
    """What ``max_time`` does to the length."""
    limit = f"ends after {clock(plan.max_time or 0.0)} in all, with the schedule completed"
    if plan.assumed:
        return f"{limit}; the number of updates follows from the speed"
    return f"{limit}; at most the updates above"


def _time(expected: Estimate) -> str:
    """The estimate, and its largest parts."""
    parts = [f"{short_time(expected.update)} an update"]
    parts += [f"{short_time(expected.evaluation)} an evaluation"] if expected.evaluation else []
    parts += (
        [f"{short_time(expected.measuring)} for the test rows, before and after"]
        if expected.measuring
        else []
    )
    return f"{about(expected.seconds)}: {', '.join(parts)}"


def _memory(session: Session) -> str:
    memory = session.memory
    kept = f", {rounded(memory.cache / 1e9)} GB for frozen-prefix activations" if memory.cache else ""
    again = ", gradient checkpointing" if memory.checkpoint else ""
    return (
        f"about {rounded(memory.peak / 1e9)} GB at the peak ({rounded(memory.weights / 1e9)} GB weights){kept}, of "
        f"{rounded(memory.limit / 1e9, 3)} GB{again}"
    )


def _micro_batches(session: Session) -> str:
    from mlxsched.data.batching.plan import batching_stats

    cut, rows = session.batching, session.train_rows
    found = batching_stats(cut, session.sampler, rows=rows)
    shared = f"; {_shared(cut.sharing)}" if cut.sharing else ""
    lines = f"; rows of up to {cut.packing.width + 1} tokens are packed" if cut.packing else ""
    return (
        f"{rounded(found.per_update)} per update of at most {cut.max_tokens:,} tokens, in {counted(len(set(found.shapes)), 'shape')}; "
        f"{found.padding:.0%} padding{lines}{shared}"
    )


def _shared(sharing: Sharing) -> str:
    """The lengths of shared prefixes, and the saving from computing them once."""
    lengths = ", ".join(f"{length:,}" for length in sharing.lengths)
    return f"shared prompts of {lengths} tokens are computed once; this saves about {sharing.saved:.0%}"


def _training(session: Session) -> str:
    config, lora = session.config, session.config.lora_parameters
    layers = counted(session.trained_layers, "layer")
    kind = f"full, the last {layers}"
    if config.fine_tune_type != "full":
        kind = f"{config.fine_tune_type}, rank {lora.rank}, scale {lora.scale:g}, {layers}"
    plus = f", B at {config.lora_plus_ratio:g}x the rate" if config.lora_plus_ratio != 1 else ""
    clip = f", gradients clipped at {config.max_grad_norm:g}" if config.max_grad_norm else ""
    return f"{kind}; {config.optimizer}{plus}{clip}"


def _rates(session: Session) -> str:
    plan, config = session.plan, session.config
    name, codes = str(plan.schedule.get("name")), {one.code for one in plan.findings}
    if config.lr_schedule is not None:
        name = f"{config.lr_schedule['name']} of lr_schedule"
    elif isinstance(config.schedule, str) and "constant_until_plateau" not in codes:
        name = config.schedule
    last = session.rate(plan.updates - 1)
    short = "warmup_shortened" in codes
    instead = f" (instead of {config.warmup:,}, since the run is short)" if short else ""
    warmup = f"warmup of {counted(plan.warmup, 'update')}{instead} to " if plan.warmup else ""
    fitted = f"; computed for an assumed length of {counted(plan.updates, 'update')}" if plan.assumed else ""
    return f"{name}: {warmup}{plan.peak:.3g}, {last:.3g} in the last update{fitted}"


def schedule_picture(session: Session, width: int) -> str:
    """A small chart of the schedule in ``width`` columns; empty if it does not fit, or for a user's own function."""
    from mlxsched.render.curves import small_picture
    from mlxsched.render.terminal import look_of_stdout
    from mlxsched.schedules import Schedule

    if width < PICTURE_WIDTHS[0] or not isinstance(session.schedule, Schedule):
        return ""
    look = replace(look_of_stdout(min(width, PICTURE_WIDTHS[1]), 10), color=False)
    return small_picture(session.schedule, steps=session.plan.updates, look=look)


def show_origins(session: Session, *, stderr: bool) -> None:
    """Print each setting with its value and origin, those that were given first."""
    values = _flat(session.config.to_dict())
    given = [
        (key, _short(values.get(key)), origin)
        for key, origin in session.origins.items()
        if origin != "default"
    ]
    rest = [
        (key, _short(values.get(key)), origin)
        for key, origin in session.origins.items()
        if origin == "default"
    ]
    table(given + rest, header=("setting", "value", "origin"), stderr=stderr)


def plan_json(session: Session, expected: Estimate | None = None) -> dict[str, Any]:
    """The plan as plain data, with configuration, origins and the estimated time."""
    return {
        **session.plan.to_dict(),
        "estimate": expected.to_dict() if expected else None,
        "micro_batch_tokens": session.micro_batch_tokens,
        "micro_batches": micro_batches_json(session),
        "memory": asdict(session.memory),
        "config": session.config.to_dict(),
        "origins": dict(session.origins),
    }


def micro_batches_json(session: Session) -> dict[str, Any]:
    """Micro-batches per update, their shapes and their share of padding, over the first hundred updates."""
    from mlxsched.data.batching.plan import batching_stats

    cut = session.batching
    found = batching_stats(cut, session.sampler, rows=session.train_rows)
    shared = {"lengths": list(cut.sharing.lengths), "saved": cut.sharing.saved} if cut.sharing else None
    return {
        "per_update": found.per_update,
        "padding": found.padding,
        "shapes": sorted(set(found.shapes)),
        "line_width": cut.packing.width if cut.packing else None,
        "shared_prompts": shared,
    }


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat = dict(values)
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": item for inner, item in value.items()}
    return flat


def _short(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _count(number: int) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{rounded(number / size, 3)}{letter}"
    return str(number)
