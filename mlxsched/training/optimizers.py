"""From the config to optimizers: one for each group of trainable tensors, one rate for all.

The schedule is evaluated on the host and the rate of each update is an argument, so any callable can be a schedule
and nothing has to be retraced. LoRA+ (Hayou et al., 2024, arXiv 2402.12354) is a second group: the B matrices, at
``ratio`` times the rate.

Where the optimizer treats each number by itself, a group is packed into one vector: the same arithmetic in one kernel
in place of hundreds (AdamW on 224 LoRA tensors: 0.3 ms in place of 5 ms).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim

from mlxsched.errors import UsageError
from mlxsched.model.trees import Tensors

Packed = dict[str, Tensors]
State = dict[str, Any]

_CLASSES: dict[str, Any] = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "muon": optim.Muon,
    "sgd": optim.SGD,
    "adafactor": optim.Adafactor,
    "lion": optim.Lion,
}
_CHEAP = (optim.Adam, optim.SGD, optim.Lion)  # AdamW is an Adam
_HALF = {mx.float16, mx.bfloat16}
_MASTERS, _ROUNDING = (
    "master_weights",
    "rounding_key",
)  # entries of a group's state besides the optimizer's own
_ELEMENTWISE = {"adam", "adamw", "sgd", "lion"}
# Adafactor by itself ignores the given rate; these make it follow the schedule.
_DEFAULTS: dict[str, dict[str, Any]] = {"adafactor": {"relative_step": False, "scale_parameter": False}}


def make_optimizer(name: str, settings: Mapping[str, Any], bias_correction: bool) -> optim.Optimizer:
    """One MLX optimizer; ``settings`` are its own keyword arguments (betas, weight_decay, ...)."""
    arguments = {**_DEFAULTS.get(name, {}), **settings}
    if name in {"adam", "adamw"}:
        arguments.setdefault("bias_correction", bias_correction)
    try:
        made: optim.Optimizer = _CLASSES[name](learning_rate=0.0, **arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"optimizer_config.{name} = {dict(settings)} does not fit {name}: {error}."
        ) from error
    return made


@dataclass(frozen=True)
class Group:
    """Tensors that share an optimizer, and the factor on the schedule's rate for them."""

    name: str
    ratio: float
    paths: tuple[str, ...]
    optimizer: optim.Optimizer


class GroupedOptimizer:
    """The update of all trainable tensors, as pure functions of packed tensors and state.

    Tensors of half precision are updated in float32: moments and gradient sums are float32, and so are copies of the
    weights ("master weights", Micikevicius et al., 2018, arXiv 1710.03740), which are part of the state. bf16 keeps 8
    bits, so an update below 1/256 of a weight would be rounded away: fine-tuning at 3e-5 moved 5.8% of the weights.
    With ``stochastic_rounding`` bf16 weights have no copies. They are rounded up or down at random, so that many small
    updates add up on average (Gupta et al., 2015, arXiv 1502.02551), which saves 4 bytes a weight.
    """

    def __init__(
        self,
        groups: list[Group],
        shapes: Mapping[str, tuple[int, ...]],
        flat: bool,
        *,
        stochastic_rounding: bool = False,
    ) -> None:
        self.groups = groups
        self._shapes = dict(shapes)
        self._flat = flat
        self._stochastic_rounding = stochastic_rounding
        # Whole layers, each number by itself: an update may be computed twice, once to check it (`UpdateStep.apply`).
        self.in_place = not flat and all(isinstance(group.optimizer, _CHEAP) for group in groups)

    def pack(self, tensors: Mapping[str, mx.array]) -> Packed:
        """Tensors by path, sorted into the groups (one vector each where that is exact)."""
        return {g.name: self._pack_group(g, tensors) for g in self.groups}

    def _pack_group(self, group: Group, tensors: Mapping[str, mx.array]) -> Tensors:
        if not self._flat:
            return {path: tensors[path] for path in group.paths}
        return {"vector": mx.concatenate([tensors[path].reshape(-1) for path in group.paths])}

    def unpack(self, packed: Packed) -> Tensors:
        """The inverse of ``pack``."""
        tensors: Tensors = {}
        for group in self.groups:
            tensors.update(self._unpack_group(group, packed[group.name]))
        return tensors

    def _unpack_group(self, group: Group, values: Tensors) -> Tensors:
        if not self._flat:
            return values
        tensors, start = {}, 0
        for path in group.paths:
            size = math.prod(self._shapes[path])
            tensors[path] = values["vector"][start : start + size].reshape(self._shapes[path])
            start += size
        return tensors

    def init(self, packed: Packed) -> State:
        """The optimizer state before the first update."""
        return {group.name: self._init_group(group, packed[group.name]) for group in self.groups}

    def _init_group(self, group: Group, values: Tensors) -> State:
        group.optimizer.init(_widened(values))
        state = dict(group.optimizer.state)
        masters = {
            path: value.astype(mx.float32) for path, value in values.items() if self._has_master(value)
        }
        if masters:
            state[_MASTERS] = masters
        if any(value.dtype in _HALF for value in values.values()) and self._stochastic_rounding:
            state[_ROUNDING] = mx.random.key(0)
        return state

    def _has_master(self, value: mx.array) -> bool:
        rounded = self._stochastic_rounding and value.dtype == mx.bfloat16
        return value.dtype in _HALF and not rounded

    def apply(self, packed: Packed, state: State, gradients: Packed, rate: mx.array) -> tuple[Packed, State]:
        """New parameters and state after one update at ``rate`` (float32 scalar)."""
        parameters, new_state = {}, {}
        for group in self.groups:
            parameters[group.name], new_state[group.name] = self._apply_group(
                group, packed[group.name], state[group.name], gradients[group.name], rate
            )
        return parameters, new_state

    def _apply_group(
        self, group: Group, values: Tensors, state: State, gradients: Tensors, rate: mx.array
    ) -> tuple[Tensors, State]:
        optimizer, own = group.optimizer, _copy(state)
        masters, key = own.pop(_MASTERS, {}), own.pop(_ROUNDING, None)
        optimizer.state = own
        optimizer.learning_rate = rate * group.ratio
        updated: Tensors = optimizer.apply_gradients(gradients, {**_widened(values), **masters})
        new_state = optimizer.state
        if masters:
            new_state[_MASTERS] = {path: updated[path] for path in masters}
        if key is None:
            return {path: updated[path].astype(value.dtype) for path, value in values.items()}, new_state
        new_state[_ROUNDING], *keys = mx.random.split(key, len(values) + 1)
        return {
            path: round_stochastically(updated[path], key)
            if value.dtype == mx.bfloat16
            else updated[path].astype(value.dtype)
            for (path, value), key in zip(values.items(), keys, strict=True)
        }, new_state


def _widened(tensors: Tensors) -> Tensors:
    return {path: v.astype(mx.float32) if v.dtype in _HALF else v for path, v in tensors.items()}


def round_stochastically(value: mx.array, key: mx.array) -> mx.array:
    """float32 to bfloat16, up or down with probabilities that make the expected result ``value``.

    >>> tenth = mx.full((100_000,), 0.1)
    >>> rounded = round_stochastically(tenth, mx.random.key(0)).astype(mx.float32)
    >>> values = rounded.tolist()  # summed by Python: 100,000 float32 additions would lose digits
    >>> round(sum(values) / len(values), 5), len(set(values))
    (0.1, 2)
    """
    # bfloat16 is the upper half of a float32. A random number of 16 bits carries into the upper half with the
    # probability that the lower half stands for; then the lower half is cut off.
    noise = mx.random.randint(0, 1 << 16, value.shape, mx.uint32, key)
    rounded = ((value.view(mx.uint32) + noise) & 0xFFFF0000).view(mx.float32)
    return mx.where(mx.isfinite(value), rounded, value).astype(mx.bfloat16)


def group_tensors(
    trainable: Mapping[str, mx.array],
    name: str,
    settings: Mapping[str, Any],
    *,
    bias_correction: bool = True,
    lora_plus_ratio: float = 1.0,
    stochastic_rounding: bool = False,
) -> GroupedOptimizer:
    """The optimizer of a run: all tensors in one group, or LoRA's B matrices in a faster one."""

    def make() -> optim.Optimizer:
        return make_optimizer(name, settings, bias_correction)

    fast = tuple(p for p in trainable if p.endswith("lora_b")) if lora_plus_ratio != 1.0 else ()
    rest = tuple(p for p in trainable if p not in set(fast))
    groups = [Group("base", 1.0, rest, make())] if rest else []
    groups += [Group("lora_b", lora_plus_ratio, fast, make())] if fast else []
    shapes = {path: tuple(value.shape) for path, value in trainable.items()}
    flat = _can_be_flat(name, trainable)
    return GroupedOptimizer(groups, shapes, flat, stochastic_rounding=stochastic_rounding)


def _can_be_flat(name: str, trainable: Mapping[str, mx.array]) -> bool:
    """Only adapters: packing whole layers would copy the model for each micro-batch."""
    adapters = all(path.rsplit(".", 1)[-1] in {"lora_a", "lora_b", "m"} for path in trainable)
    return name in _ELEMENTWISE and adapters and len({v.dtype for v in trainable.values()}) == 1


def _copy(state: Any) -> Any:
    """A state with containers of its own, so that an optimizer can't write into the caller's."""
    return {key: _copy(value) for key, value in state.items()} if isinstance(state, dict) else state
