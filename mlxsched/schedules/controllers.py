"""Controllers: schedules that scale another one by a factor that follows a metric.

A controller is a frozen value like any schedule, and what it has observed is a second value next to it::

    state = controller.init()
    state = controller.observe(state, validation_loss)        # after each evaluation
    rate = controller.rate(state, update)                     # schedule(update) * state.factor

States are frozen too; ``state.to_dict()`` is plain JSON for a checkpoint, ``controller.state_from(mapping)`` reads
and checks it. ``controller(step)`` is the rate in the initial state, whose factor is 1. Limits are factors
and not rates, so the defaults fit a peak of 1e-5 as well as one of 1e-2.

Where a mutable object is more convenient, ``controller.live()`` returns a `LiveController`. A compiled step takes
constants as they were when it was traced, so the factor must come in from outside. Either capture ``live.state``
together with the optimizer's, with the live controller as learning rate::

    live = controller.live()
    optimizer = optim.AdamW(learning_rate=live)
    state = [model.state, optimizer.state, live.state]
    step = mx.compile(step, inputs=state, outputs=state)

or set the rate from outside, with no callable in the optimizer::

    optimizer.learning_rate = live(update)                    # captured with optimizer.state

Both keep one trace. Without either, the compiled step would not notice that the factor changes. Eager code
needs neither, and mlxsched's own trainer evaluates the rate outside of its compiled step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import mlx.core as mx

from mlxsched.errors import ScheduleError
from mlxsched.schedules.backends import Backend, Number
from mlxsched.schedules.base import Phase
from mlxsched.schedules.combinators import Wrapped
from mlxsched.schedules.fields import Count, Positive, Rate, Real, Steps, one_of, rules_of, shown
from mlxsched.schedules.parts import value_of


@dataclass(frozen=True)
class ControllerState:
    """What a controller has observed so far.

    Attributes:
        factor: what the schedule's rate is multiplied with; 1 before the first observation.
        best: the best metric so far; None before the first finite one.
        bad: observations in a row without improvement.
        cooling: observations that remain of a cooldown.
    """

    factor: Rate = 1.0
    best: Real | None = None
    bad: Count = 0
    cooling: Count = 0

    def to_dict(self) -> dict[str, Any]:
        """The state as plain JSON; the controller's arguments are in its own `to_dict`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Self:
        """Read what `to_dict` returned.

        Raises:
            ScheduleError: a key is missing or unknown, or a value is not of its kind.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(mapping, Mapping) or mapping.keys() != known:
            found = ", ".join(map(shown, mapping)) if isinstance(mapping, Mapping) else shown(mapping)
            raise ScheduleError(
                f"`state` must have the keys {', '.join(sorted(known))}; got {found or 'none'}. "
                "Load what `to_dict` of the same kind of controller's state returned."
            )
        rules = rules_of(cls)
        return cls(**{key: rules[key](f"state.{key}", value) for key, value in mapping.items()})


@dataclass(frozen=True)
class GreedyState(ControllerState):
    """What `greedy` has observed so far.

    Attributes:
        good: observations in a row with improvement.
        settling: observations that remain of a pause after a rise.
        falls_at_minimum: falls since the factor reached its minimum.
        recent: the last finite metrics, at most `window`.
        total: their sum, kept up as transformers keeps it: adding the newest and subtracting the oldest rounds
            differently from a fresh sum, which decides ties. None stands for the fresh sum.
    """

    good: Count = 0
    settling: Count = 0
    falls_at_minimum: Count = 0
    recent: tuple[Real, ...] = ()
    total: Real | None = None

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Self:
        """Read what `to_dict` returned; states saved before `total` was kept lack it."""
        return super().from_dict({"total": None, **mapping} if isinstance(mapping, Mapping) else mapping)


@dataclass(frozen=True)
class Controller(Wrapped):
    """What plateau and greedy share: a factor on a schedule, and how a metric is judged."""

    decay_rate: Positive = 0.5
    patience: Count = 2
    threshold: Rate = 1e-3
    threshold_mode: str = "rel"
    mode: str = "min"
    cooldown: Count = 0
    min_factor: Rate = 0.01
    min_change: Rate = 0.0

    def _check(self) -> None:
        super()._check()
        one_of("threshold_mode", self.threshold_mode, ("rel", "abs"))
        one_of("mode", self.mode, ("min", "max"))
        if self.decay_rate >= 1:
            raise ScheduleError(
                f"`decay_rate` must be below 1; got {self.decay_rate}. 0.5 halves the rate each time."
            )
        if self.min_factor > 1:
            raise ScheduleError(
                f"`min_factor` must be 1 or less; got {self.min_factor}. It is a fraction of the rate."
            )

    def init(self) -> Any:
        """The state before anything was observed: factor 1."""
        return ControllerState()

    def observe(self, state: Any, metric: float) -> Any:
        """The state after one more value of the metric, usually the validation loss.

        A value that is not finite counts as no improvement and leaves no other trace.
        """
        raise NotImplementedError

    def rate(self, state: ControllerState, step: Any) -> Any:
        """The rate at `step` in a state: ``controller(step) * state.factor``."""
        return self(step) * state.factor

    def state_from(self, mapping: Mapping[str, Any]) -> Any:
        """The state that ``state.to_dict()`` describes.

        Raises:
            ScheduleError: it is not a state that this controller can be in.
        """
        state = type(self.init()).from_dict(mapping)
        low, high = self._limits()
        if not low <= state.factor <= high:
            raise ScheduleError(
                f"`state.factor` must be from {low:g} to {high:g} for this controller; got {state.factor:g}. "
                "Load the state together with the schedule that it was saved with."
            )
        return state

    def live(self) -> LiveController:
        """A mutable object with this controller and its state, for use as a learning rate."""
        return LiveController(self)

    def _limits(self) -> tuple[float, float]:
        """The lowest and the highest factor."""
        return self.min_factor, 1.0

    def _better(self, metric: float, best: float | None) -> bool:
        """Whether `metric` improves on the best one by more than the threshold.

        Before the first finite metric the best is the worst possible one, as in torch: an infinite first loss
        must not become the best, because no later one could improve on infinity by a margin.
        """
        if not math.isfinite(metric):
            return False
        if best is None:
            return True
        # The same order of operations as in torch and transformers, so that ties are decided alike.
        if self.mode == "max":
            return metric > (best * (1.0 + self.threshold) if self._relative else best + self.threshold)
        return metric < (best * (1.0 - self.threshold) if self._relative else best - self.threshold)

    @property
    def _relative(self) -> bool:
        return self.threshold_mode == "rel"

    def _lowered(self, factor: float) -> float:
        lower = max(factor * self.decay_rate, self.min_factor)
        return lower if factor - lower > self.min_change else factor

    def _value(self, step: Number, ops: Backend) -> Number:
        return value_of(self.schedule, step, ops)


@dataclass(frozen=True)
class plateau(Controller):
    """Lower the rate when the metric has stopped improving.

    Formula: rate(t) = schedule(t) * factor; factor starts at 1; factor *= decay_rate, not below min_factor, after
        `patience` + 1 observations in a row without improvement
    When: runs of unknown length with a trustworthy validation set. If the length is known, a schedule that ends
        at 0 does better.
    Source: torch.optim.lr_scheduler.ReduceLROnPlateau
    Spec: plateau(schedule=warmup_constant(peak=2e-4, warmup=100), decay_rate=0.5, patience=2)

    Args:
        schedule: the schedule, or function of the step, that is scaled.
        decay_rate: what the factor is multiplied with each time, below 1.
        patience: observations without improvement that are tolerated.
        threshold: the improvement that counts, in the unit that `threshold_mode` gives.
        threshold_mode: ``rel``, a fraction of the best value; ``abs``, in the metric's own unit.
        mode: ``min`` if a lower metric is better (a loss), ``max`` if a higher one is (accuracy).
        cooldown: observations after a change that are not counted.
        min_factor: the lowest factor.
        min_change: changes of the factor of at most this size are skipped.

    Raises:
        ScheduleError: an argument does not fit.

    >>> from mlxsched import warmup_constant
    >>> controller = plateau(warmup_constant(2e-4, 100), patience=1)
    >>> state = controller.init()
    >>> for loss in (2.0, 1.5, 1.6, 1.55):
    ...     state = controller.observe(state, loss)
    >>> state.factor, controller.rate(state, 100), controller(100)
    (0.5, 0.0001, 0.0002)
    """

    def observe(self, state: ControllerState, metric: float) -> ControllerState:
        """The state after one more value of the metric."""
        metric = float(metric)
        if self._better(metric, state.best):
            state = replace(state, best=metric, bad=0)
        else:
            state = replace(state, bad=state.bad + 1)
        if state.cooling:
            state = replace(state, cooling=state.cooling - 1, bad=0)
        if state.bad > self.patience:
            state = replace(state, factor=self._lowered(state.factor), cooling=self.cooldown, bad=0)
        return state


@dataclass(frozen=True)
class greedy(Controller):
    """Raise the rate while the metric improves, lower it while it does not.

    Formula: rate(t) = schedule(t) * factor; factor starts at 1; after `patience` + 1 improvements in a row
        factor /= decay_rate, not above max_factor; after as many observations without improvement
        factor *= decay_rate, not below min_factor
    When: to let a run find its own rate around a guess. GreedyLR's own limits are rates (1e-3 to 1), with which
        a rate of 2e-4 could only rise; here they are factors on the schedule.
    Source: GreedyLR (arXiv 2512.14527), in transformers as lr_scheduler_type="greedy"
    Spec: greedy(schedule=warmup_constant(peak=2e-4, warmup=100), patience=2)

    Args:
        schedule: the schedule, or function of the step, that is scaled.
        decay_rate: what the factor is multiplied with or divided by each time, below 1.
        patience: observations of one kind in a row that are tolerated.
        threshold: the improvement that counts, in the unit that `threshold_mode` gives.
        threshold_mode: ``rel``, a fraction of the best value; ``abs``, in the metric's own unit.
        mode: ``min`` if a lower metric is better (a loss), ``max`` if a higher one is (accuracy).
        cooldown: observations after a fall that are not counted.
        min_factor: the lowest factor.
        min_change: changes of the factor of at most this size are skipped.
        max_factor: the highest factor, at least 1.
        settle: observations after a rise that are not counted.
        window: judge the mean of the last `window` observations; 0 judges each one by itself.
        reset_after: start over after this many falls at the lowest factor; None never does.

    Raises:
        ScheduleError: an argument does not fit.

    >>> from mlxsched import warmup_constant
    >>> controller = greedy(warmup_constant(2e-4, 100), patience=1, decay_rate=0.8)
    >>> state = controller.init()
    >>> for loss in (2.0, 1.5):
    ...     state = controller.observe(state, loss)
    >>> state.factor, controller.rate(state, 100)
    (1.25, 0.00025)
    """

    decay_rate: Positive = 0.9
    min_factor: Rate = 0.05
    max_factor: Positive = 4.0
    settle: Count = 0
    window: Count = 0
    reset_after: Steps | None = None

    def init(self) -> GreedyState:
        """The state before anything was observed: factor 1."""
        return GreedyState()

    def observe(self, state: GreedyState, metric: float) -> GreedyState:
        """The state after one more value of the metric."""
        metric = float(metric)
        if self.window and math.isfinite(metric):
            state = self._smoothed(state, metric)
            metric = (state.total or 0.0) / len(state.recent)
        if state.cooling:
            return replace(state, cooling=state.cooling - 1, bad=0, good=0)
        if state.settling:
            return replace(state, settling=state.settling - 1, bad=0, good=0)
        if self._better(metric, state.best):
            state = replace(state, best=metric, bad=0, good=state.good + 1)
        else:
            state = replace(state, bad=state.bad + 1, good=0)
        if state.good > self.patience:
            raised = self._raised(state.factor)
            return replace(state, factor=raised, falls_at_minimum=0, settling=self.settle, good=0)
        return self._fallen(state) if state.bad > self.patience else state

    def _limits(self) -> tuple[float, float]:
        return self.min_factor, max(self.max_factor, 1.0)

    def _smoothed(self, state: GreedyState, metric: float) -> GreedyState:
        """The state with one more metric in its window."""
        recent = (*state.recent, metric)
        total = (sum(state.recent) if state.total is None else state.total) + metric
        if len(recent) > self.window:
            total, recent = total - recent[0], recent[1:]
        return replace(state, recent=recent, total=total)

    def _raised(self, factor: float) -> float:
        higher = min(factor / self.decay_rate, self.max_factor)
        return higher if higher - factor > self.min_change else factor

    def _fallen(self, state: GreedyState) -> GreedyState:
        factor = self._lowered(state.factor)
        falls = state.falls_at_minimum + (factor <= self.min_factor)
        if self.reset_after is not None and falls >= self.reset_after:
            return replace(self.init(), cooling=self.cooldown)
        return replace(state, factor=factor, falls_at_minimum=falls, cooling=self.cooldown, bad=0)


class LiveController:
    """A controller with its state, as a mutable learning rate: the one object here that changes.

    Two are equal only if they are the same object. It is called like a schedule, and `observe` moves its factor.

    Args:
        controller: the controller.
        observed: the state to start from; default the initial one.

    >>> from mlxsched import constant, plateau
    >>> live = plateau(constant(2e-4), patience=0).live()
    >>> live.observe(2.0)
    >>> live.observe(2.0)
    >>> live.factor, live(0)
    (0.5, 0.0001)
    """

    def __init__(self, controller: Controller, observed: ControllerState | None = None) -> None:
        self.controller = controller
        self.observed: ControllerState = controller.init() if observed is None else observed
        self.state = [mx.array(self.observed.factor)]
        """The factor for compiled steps: capture this list among their inputs and outputs."""

    def __call__(self, step: Any) -> Any:
        rate = self.controller(step)
        return rate * (self.state[0] if isinstance(rate, mx.array) else self.factor)

    def observe(self, metric: float) -> None:
        """Take in a new value of the metric."""
        self._set(self.controller.observe(self.observed, metric))

    def reset(self) -> None:
        """Return to the initial state."""
        self._set(self.controller.init())

    def state_dict(self) -> dict[str, Any]:
        """What has been observed, as plain JSON for a checkpoint."""
        return self.observed.to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from an earlier `state_dict`.

        Raises:
            ScheduleError: it is not a state that this controller can be in.
        """
        self._set(self.controller.state_from(state))

    @property
    def factor(self) -> float:
        """What the schedule's rate is multiplied with now."""
        return self.observed.factor

    @property
    def steps(self) -> int | None:
        """The schedule's steps; the factor may change later."""
        return self.controller.steps

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The schedule's phases."""
        return self.controller.phases

    def to_dict(self) -> dict[str, Any]:
        """The controller's dictionary form, without what it has observed."""
        return self.controller.to_dict()

    def __reduce__(self) -> tuple[Any, ...]:
        return LiveController, (self.controller, self.observed)

    def __repr__(self) -> str:
        return f"LiveController({self.controller!r}, {self.observed!r})"

    def _set(self, observed: ControllerState) -> None:
        self.observed = observed
        self.state[0] = mx.array(observed.factor)
