"""A planned session made into the parts that train it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from pathlib import Path

from mlxsched.analysis.rates import next_peak, peak_rates
from mlxsched.config.average import parse_average
from mlxsched.model.evaluate import Evaluator
from mlxsched.model.fast.forward_path import ForwardPath
from mlxsched.model.trees import Tensors, flatten, unflatten
from mlxsched.planning.cycles import cycle_ends
from mlxsched.runs.directory import RunDirectory
from mlxsched.training.acceleration import batching_of
from mlxsched.training.averaging import Averager, points_every
from mlxsched.training.batch_loader import BatchLoader
from mlxsched.training.checkpointer import Checkpointer
from mlxsched.training.engine import Engine, EngineSettings
from mlxsched.training.loop import Loop
from mlxsched.training.optimizers import group_tensors
from mlxsched.training.pace import Horizon, Pace
from mlxsched.training.policies.averaging import Averaging, Outlets
from mlxsched.training.policies.base import Policy
from mlxsched.training.policies.divergence import Divergence, NonFinite, Spikes
from mlxsched.training.policies.evaluation import Evaluation, NameBadRows, Patience
from mlxsched.training.policies.host import ClearCache, NoticeSleep, PauseOnBattery
from mlxsched.training.policies.plateau import UntilPlateau
from mlxsched.training.policies.requests import Requests
from mlxsched.training.policies.saving import Saving
from mlxsched.training.policies.snapshots import Snapshots, kept_ends
from mlxsched.training.policies.stopping import StopOnSignal
from mlxsched.training.policies.time_budget import Budget, TimeBudget
from mlxsched.training.policies.verdict import Verdict
from mlxsched.training.policies.workers import KeepWorkers
from mlxsched.training.session import Session
from mlxsched.training.timing import Work
from mlxsched.training.workers.engine import SharedEngine
from mlxsched.training.workers.leader import LeadingEngine

FAR_ABOVE = 10.0  # times the usual peak rate


def make_pace(session: Session) -> Pace:
    """The horizon of ``session`` as it was planned."""
    return Pace(Horizon(session.plan.updates, session.schedule, session.plan.last_rows))


def make_engine(session: Session, path: ForwardPath) -> Engine:
    """The engine of a session whose training micro-batches take ``path``, for the role of this worker."""
    config, model = session.config, session.loaded.model
    optimizer = group_tensors(
        flatten(model.trainable_parameters()),
        config.optimizer,
        config.optimizer_arguments,
        bias_correction=config.bias_correction,
        lora_plus_ratio=config.lora_plus_ratio,
        stochastic_rounding=config.stochastic_rounding,
    )
    seed = (
        config.seed + (session.world.rank << 24)
    ) % 2**32  # other dropout masks for the rows of each worker
    settings: EngineSettings = {
        "max_grad_norm": config.max_grad_norm,
        "dropout_seed": seed if config.lora_parameters.dropout > 0 else None,
        # Without recomputation, which the self-check may have switched off, an update needs more than the limit.
        "room": session.allocation_limit if path.checkpoint else None,
    }
    if session.world.alone:
        return Engine(model, optimizer, path, **settings)
    role = LeadingEngine if session.world.rank == 0 else SharedEngine
    return role(session.world, model, optimizer, path, **settings)


def make_loader(session: Session, path: ForwardPath, pace: Pace) -> BatchLoader:
    """The micro-batches of the session's training rows, laid out for ``path``."""
    plan = batching_of(session, path)
    rows_of = lambda update: pace.horizon.rows_of(update)  # noqa: E731  a policy may replace the horizon
    return BatchLoader(
        session.train_rows, session.sampler, plan, path.arrays, rows_of=rows_of, share_of=session.own_rows
    )


def make_evaluator(session: Session, path: ForwardPath) -> Evaluator | None:
    """The evaluator of the validation rows; None without any."""
    valid, config = session.dataset.valid, session.config
    if valid is None or not _evaluates(session):
        return None
    limit = None if config.val_batches < 0 else config.val_batches * config.batch_size
    return Evaluator(session.loaded.model, valid, path, max_tokens=session.micro_batch_tokens, limit=limit)


def _evaluates(session: Session) -> bool:
    return session.dataset.valid is not None and session.config.val_batches != 0


def make_checkpointer(session: Session, run: RunDirectory, pace: Pace) -> Checkpointer:
    """What writes the checkpoints and adapters of ``run``."""
    trunk = lambda: pace.horizon.trunk  # noqa: E731
    return Checkpointer(run, session.adapter_config, session.config.keep_last, trunk)


def policies_of(
    session: Session, run: RunDirectory, loop: Loop, stop_signal: Callable[[], int]
) -> list[Policy]:
    """The policies of a run in the order in which they are asked."""
    config = session.config
    policies = [] if config.max_time is None else [_time_budget(session, run, loop, config.max_time)]
    policies += [*_averaging(session, loop), *_evaluation_policies(session, run, loop)]
    policies += _snapshots(loop)
    policies.append(Requests(run, loop.pace, config.end_lr))
    trunk = lambda: loop.pace.horizon.trunk  # noqa: E731  a policy may replace the horizon
    policies += [Saving(config.save_every, config.save_minutes, trunk), NoticeSleep()]
    if isinstance(loop.engine, LeadingEngine):
        policies.append(KeepWorkers(loop.engine.rest))
    if config.pause_below:
        policies.append(PauseOnBattery(round(config.pause_below * 100), _stopping(loop, stop_signal)))
    resume = resume_command(session, run.path)
    policies.append(StopOnSignal(stop_signal, lambda: loop.pace.updates, resume))
    policies += [ClearCache(config.clear_cache_threshold)] if config.clear_cache_threshold else []
    return policies + _divergence_policies(session, run, loop)


def _time_budget(session: Session, run: RunDirectory, loop: Loop, seconds: float) -> Policy:
    """What makes the run end after ``seconds``; must be the first policy."""
    plan = session.plan
    most = None if plan.assumed else loop.pace.updates
    budget = Budget(seconds, session.started, most, run.metrics.written_at)
    work = work_of(session)
    return TimeBudget(budget, loop.pace, work, session.warmup_of)


def work_of(session: Session) -> Work:
    """What the run of ``session`` does besides its updates."""
    plan = session.plan
    tokens = (plan.tokens - plan.rows) / plan.updates_per_epoch  # the last token of a row is only a target
    return Work(tokens, session.steps_per_eval if _evaluates(session) else None, session.config.save_every)


def _stopping(loop: Loop, stop_signal: Callable[[], int]) -> Callable[[], bool]:
    """Whether a signal came, for a policy that waits; other workers learn that this one is still there."""

    def stopping() -> bool:
        if isinstance(loop.engine, LeadingEngine):
            loop.engine.rest()
        return stop_signal() != 0

    return stopping


def _evaluation_policies(session: Session, run: RunDirectory, loop: Loop) -> list[Policy]:
    evaluator, patience = loop.evaluator, session.config.patience
    if evaluator is None:
        return []
    bad_rows = lambda: evaluator.rows.places(evaluator.non_finite_rows(loop.engine.tree()))  # noqa: E731
    policies: list[Policy] = [
        Evaluation(lambda: session.steps_per_eval(loop.pace.updates)),
        NameBadRows(bad_rows),
    ]
    policies += [Verdict(run, loop.pace), *([Patience(patience)] if patience else [])]
    config, warmup = session.config, session.plan.warmup
    return policies + ([UntilPlateau(loop.pace, warmup, config.end_lr)] if config.until_plateau else [])


def _averaging(session: Session, loop: Loop) -> list[Policy]:
    config, evaluator, checkpointer = session.config, loop.evaluator, loop.checkpointer
    if config.average is None or checkpointer is None:
        return []
    is_end = lambda update: update in cycle_ends(loop.pace.horizon.schedule, loop.pace.updates)  # noqa: E731
    every = points_every(config, session.plan.updates)
    averager = Averager(parse_average(config.average), every, is_end, loop.engine.optimizer.unpack)
    checkpointer.averager = averager

    def measure(tensors: Tensors) -> float | None:
        if evaluator is None:
            return None
        return evaluator(unflatten(tensors), loop.ticker("validation of the average")).loss

    parameters = lambda: loop.engine.snapshot().parameters  # noqa: E731
    outlets = Outlets(parameters, measure, checkpointer.write_adapter, checkpointer.write_average)
    return [Averaging(averager, session.plan.steps_per_eval, outlets)]


def _snapshots(loop: Loop) -> list[Policy]:
    checkpointer = loop.checkpointer
    if checkpointer is None:
        return []
    ends = lambda: kept_ends(loop.pace.horizon.schedule, loop.pace.updates)  # noqa: E731
    return [Snapshots(ends, lambda update: checkpointer.write_snapshot(loop.engine.tensors(), update))]


def _divergence_policies(session: Session, run: RunDirectory, loop: Loop) -> list[Policy]:
    config, rows = session.config, session.train_rows
    may_roll_back, adapter = config.on_divergence == "halve", str(run.adapters)
    places = lambda update: f"training rows {rows.places(loop.loader.indices(update))}"  # noqa: E731
    return [
        Spikes(),
        NonFinite(config.max_bad_updates, may_roll_back, places, adapter, _lower_rate(session, 3)),
        Divergence(uniform_loss(session), may_roll_back, adapter, _lower_rate(session, 10)),
    ]


def _lower_rate(session: Session, factor: float) -> str:
    """The fix for a rate that was too high; it names the same rate as `mlxsched diagnose`."""
    config = session.config
    ratio = 1.0 if config.fine_tune_type == "full" else max(config.lora_plus_ratio, 1.0)
    usual = peak_rates(config.optimizer, config.fine_tune_type).start(ratio)
    again = f"Train again with --learning-rate {next_peak(session.plan.peak / factor, usual)}"
    if session.plan.peak > FAR_ABOVE * usual:  # neither a warmup nor half of the rate would help
        return again
    return f"{again}, lengthen --warmup, or let the run recover by itself with --on-divergence halve"


def resume_command(session: Session, path: Path) -> str:
    """The command that resumes the run, with the flags that are never read from a run's files."""
    config = session.config
    target = f" --adapter-path {shlex.quote(config.adapter_path)}" if config.adapter_path else ""
    trusted = " --trust-remote-code" if config.trust_remote_code else ""
    return f"mlxsched resume {shlex.quote(str(path))}{target}{trusted}"


def uniform_loss(session: Session) -> float:
    """The loss of a model that gives every token of its vocabulary the same probability."""
    return math.log(max(int(session.loaded.config.get("vocab_size") or 0), 2))
