"""Controllers: schedules that scale another one by a factor that follows a metric.

A controller is called like any schedule, ``schedule(step) * factor`` of the schedule it wraps;
``observe(metric)`` after each evaluation moves the factor. What it has seen is its state, apart from its
arguments: ``state_dict`` and ``load_state_dict`` (plain JSON) belong into a checkpoint, while ``to_dict``,
equality and hash know the arguments only. Limits are
factors, not rates, so the defaults fit a peak of 1e-5 as well as one of 1e-2.

A compiled step takes a constant as it was when the step was traced, so the factor must come in from outside.
Either capture the controller's ``state`` beside the optimizer's, with the controller as learning rate::

    optimizer = optim.AdamW(learning_rate=controller)
    state = [model.state, optimizer.state, controller.state]
    step = mx.compile(step, inputs=state, outputs=state)

or set the rate from outside, with no callable in the optimizer::

    optimizer.learning_rate = controller(update)              # captured with optimizer.state

Both keep one trace. Without either, the compiled step would not notice that the factor moves. Eager code
needs neither, and mlxsched's own trainer evaluates the rate outside of its compiled step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlxsched.errors import ScheduleError
from mlxsched.schedules.backends import MLX, Backend, Number
from mlxsched.schedules.base import value_of
from mlxsched.schedules.combinators import _Wrapped
from mlxsched.schedules.fields import Above0, Count, Rate, Steps, one_of

State = dict[str, Any]


@dataclass(frozen=True)
class Controller(_Wrapped):
    """What plateau and greedy have in common: a factor on a schedule, and the judgement of a metric."""

    decay_rate: Above0 = 0.5
    patience: Count = 2
    threshold: Rate = 1e-3
    threshold_mode: str = "rel"
    mode: str = "min"
    cooldown: Count = 0
    min_factor: Rate = 0.01
    min_change: Rate = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        # Beside the fields: what equality, hash and the forms don't see.
        self.__dict__.update(_seen=self._fresh(), _state=[mx.array(1.0)])

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
                f"`min_factor` must be 1 or less; got {self.min_factor}. It is a share of the rate."
            )

    def observe(self, metric: float) -> None:
        """Take in a new value of the metric, most often the validation loss; NaN counts as no better."""
        self._judge(float(metric))
        self.state[0] = mx.array(self.factor)

    @property
    def factor(self) -> float:
        """What the schedule's rate is multiplied with now; 1 before anything was observed."""
        return float(self._seen["factor"])

    @property
    def state(self) -> list[mx.array]:
        """The factor for compiled steps: capture this list among their inputs and outputs."""
        state: list[mx.array] = self.__dict__["_state"]
        return state

    def state_dict(self) -> State:
        """What has been seen so far, as plain JSON; the arguments are in `to_dict`."""
        return copy.deepcopy(self._seen)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier `state_dict`.

        Raises:
            ScheduleError: the state is not one of this kind of controller.
        """
        if state.keys() != self._seen.keys():
            raise ScheduleError(
                f"`state` must have the keys {', '.join(self._seen)}; got {', '.join(state) or 'none'}. "
                f"Load what {type(self).__name__}.state_dict() returned."
            )
        self._seen.update(copy.deepcopy(dict(state)))
        self.state[0] = mx.array(self.factor)

    def _fresh(self) -> State:
        """The state before anything was observed."""
        return {"factor": 1.0, "best": None, "bad": 0, "cooling": 0}

    def _judge(self, metric: float) -> None:
        raise NotImplementedError

    @property
    def _seen(self) -> State:
        seen: State = self.__dict__["_seen"]
        return seen

    def _better(self, metric: float) -> bool:
        """Whether `metric` improves on the best one so far by more than the threshold."""
        best = self._seen["best"]
        if best is None:
            return not math.isnan(metric)
        margin = self.threshold * best if self.threshold_mode == "rel" else self.threshold
        return bool(metric > best + margin if self.mode == "max" else metric < best - margin)

    def _lower(self) -> None:
        factor = max(self.factor * self.decay_rate, self.min_factor)
        if self.factor - factor > self.min_change:
            self._seen["factor"] = factor

    def _value(self, step: Number, ops: Backend) -> Number:
        return value_of(self.schedule, step, ops) * (self.state[0] if ops is MLX else self.factor)

    def __reduce__(self) -> tuple[Any, ...]:
        return *super().__reduce__(), self.state_dict()

    def __setstate__(self, state: State) -> None:
        self.load_state_dict(state)


@dataclass(frozen=True)
class plateau(Controller):
    """Lower the rate when the metric has stopped improving.

    Formula: rate(t) = schedule(t) * factor; factor *= decay_rate, not below min_factor, when `patience` + 1
        observations in a row were no improvement
    When: runs of open length with an honest validation set. A schedule that ends at 0 is better when the
        length is known.
    Source: torch.optim.lr_scheduler.ReduceLROnPlateau
    Spec: plateau(schedule=warmup_constant(peak=2e-4, warmup=100), decay_rate=0.5, patience=2)

    Args:
        schedule: the schedule, or function of the step, that is scaled.
        decay_rate: the factor's change each time, below 1.
        patience: observations without improvement that are let pass.
        threshold: how much better counts as better.
        threshold_mode: ``rel``, a share of the best value; ``abs``, in the metric's unit.
        mode: ``min`` when a lower metric is better (a loss), ``max`` when a higher one is (accuracy).
        cooldown: observations after a change in which nothing is counted.
        min_factor: the lowest factor.
        min_change: changes of the factor up to this are left out.

    Raises:
        ScheduleError: an argument does not fit.

    >>> from mlxsched import warmup_constant
    >>> schedule = plateau(warmup_constant(2e-4, 100), patience=1)
    >>> for loss in (2.0, 1.5, 1.6, 1.55):
    ...     schedule.observe(loss)
    >>> schedule.factor, schedule(100)
    (0.5, 0.0001)
    """

    def _judge(self, metric: float) -> None:
        seen = self._seen
        if self._better(metric):
            seen.update(best=metric, bad=0)
        else:
            seen["bad"] += 1
        if seen["cooling"]:
            seen.update(cooling=seen["cooling"] - 1, bad=0)
        if seen["bad"] > self.patience:
            self._lower()
            seen.update(cooling=self.cooldown, bad=0)


@dataclass(frozen=True)
class greedy(Controller):
    """Raise the rate while the metric improves, lower it while it does not.

    Formula: rate(t) = schedule(t) * factor; after `patience` + 1 improvements in a row factor /= decay_rate,
        not above max_factor; after as many failures factor *= decay_rate, not below min_factor
    When: to let a run find its own rate around a guessed one. GreedyLR's own limits are rates (1e-3 to 1),
        so a rate of 2e-4 can only rise there; here they are factors on the schedule.
    Source: GreedyLR (arXiv 2512.14527), in transformers as lr_scheduler_type="greedy"
    Spec: greedy(schedule=warmup_constant(peak=2e-4, warmup=100), patience=2)

    Args:
        schedule: the schedule, or function of the step, that is scaled.
        decay_rate: the factor's change each time, below 1.
        patience: observations of one kind in a row that are let pass.
        threshold: how much better counts as better.
        threshold_mode: ``rel``, a share of the best value; ``abs``, in the metric's unit.
        mode: ``min`` when a lower metric is better (a loss), ``max`` when a higher one is (accuracy).
        cooldown: observations after a fall in which nothing is counted.
        min_factor: the lowest factor.
        min_change: changes of the factor up to this are left out.
        max_factor: the highest factor.
        settle: observations after a rise in which nothing is counted.
        window: judge the mean of so many observations; 0 judges each by itself.
        reset_after: start over after so many falls at the lowest factor; None never does.

    Raises:
        ScheduleError: an argument does not fit.

    >>> from mlxsched import warmup_constant
    >>> schedule = greedy(warmup_constant(2e-4, 100), patience=1, decay_rate=0.8)
    >>> for loss in (2.0, 1.5):
    ...     schedule.observe(loss)
    >>> schedule.factor, schedule(100)
    (1.25, 0.00025)
    """

    decay_rate: Above0 = 0.9
    min_factor: Rate = 0.05
    max_factor: Above0 = 4.0
    settle: Count = 0
    window: Count = 0
    reset_after: Steps | None = None

    def _fresh(self) -> State:
        return {**super()._fresh(), "good": 0, "settling": 0, "falls_at_minimum": 0, "recent": []}

    def _judge(self, metric: float) -> None:
        seen = self._seen
        metric = self._smoothed(metric)
        for pause in ("cooling", "settling"):
            if seen[pause]:
                seen.update({pause: seen[pause] - 1, "bad": 0, "good": 0})
                return
        if self._better(metric):
            seen.update(best=metric, bad=0, good=seen["good"] + 1)
        else:
            seen.update(bad=seen["bad"] + 1, good=0)
        if seen["good"] > self.patience:
            self._raise()
            seen.update(settling=self.settle, good=0)
        elif seen["bad"] > self.patience:
            self._fall()

    def _smoothed(self, metric: float) -> float:
        if not self.window:
            return metric
        recent: list[float] = [*self._seen["recent"], metric][-self.window :]
        self._seen["recent"] = recent
        return sum(recent) / len(recent)

    def _raise(self) -> None:
        factor = min(self.factor / self.decay_rate, self.max_factor)
        if factor - self.factor > self.min_change:
            self._seen["factor"] = factor
        self._seen["falls_at_minimum"] = 0

    def _fall(self) -> None:
        self._lower()
        if self.factor <= self.min_factor:
            self._seen["falls_at_minimum"] += 1
            if self._seen["falls_at_minimum"] == self.reset_after:
                self._seen.update(self._fresh())
        self._seen.update(cooling=self.cooldown, bad=0)
