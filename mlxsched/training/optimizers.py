"""From the config to optimizers: one for each group of trainable tensors, one rate for all.

The trainer evaluates the schedule on the host and hands the rate of each update in, so any callable
can be a schedule and nothing has to be retraced. LoRA+ (Hayou et al., 2024, arXiv 2402.12354) is a
second group: the B matrices, at ``ratio`` times the rate.

Where the optimizer treats each number by itself, a group is packed into one vector: the same
arithmetic in one kernel instead of hundreds.
"""

from __future__ import annotations

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
    """The update of all trainable tensors, as pure functions of packed tensors and state."""

    def __init__(self, groups: list[Group], shapes: Mapping[str, tuple[int, ...]], flat: bool) -> None:
        self.groups = groups
        self._shapes = dict(shapes)
        self._flat = flat

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
            size = 1
            for extent in self._shapes[path]:
                size *= extent
            tensors[path] = values["vector"][start : start + size].reshape(self._shapes[path])
            start += size
        return tensors

    def init(self, packed: Packed) -> State:
        """The optimizer state before the first update."""
        for group in self.groups:
            group.optimizer.init(packed[group.name])
        return {g.name: dict(g.optimizer.state) for g in self.groups}

    def apply(self, packed: Packed, state: State, gradients: Packed, rate: mx.array) -> tuple[Packed, State]:
        """New parameters and state after one update at ``rate`` (float32 scalar)."""
        parameters, new_state = {}, {}
        for group in self.groups:
            optimizer = group.optimizer
            optimizer.state = _copy(state[group.name])
            optimizer.learning_rate = rate * group.ratio
            parameters[group.name] = optimizer.apply_gradients(gradients[group.name], packed[group.name])
            new_state[group.name] = optimizer.state
        return parameters, new_state


def group_tensors(
    trainable: Mapping[str, mx.array],
    name: str,
    settings: Mapping[str, Any],
    *,
    bias_correction: bool = True,
    lora_plus_ratio: float = 1.0,
) -> GroupedOptimizer:
    """The optimizer of a run: all tensors in one group, or LoRA's B matrices in a faster one."""

    def make() -> optim.Optimizer:
        return make_optimizer(name, settings, bias_correction)

    fast = tuple(p for p in trainable if p.endswith("lora_b")) if lora_plus_ratio != 1.0 else ()
    rest = tuple(p for p in trainable if p not in set(fast))
    groups = [Group("base", 1.0, rest, make())] if rest else []
    groups += [Group("lora_b", lora_plus_ratio, fast, make())] if fast else []
    shapes = {path: tuple(value.shape) for path, value in trainable.items()}
    return GroupedOptimizer(groups, shapes, _can_be_flat(name, trainable))


def _can_be_flat(name: str, trainable: Mapping[str, mx.array]) -> bool:
    """Only adapters: packing whole layers would copy the model at each micro-batch."""
    adapters = all(path.rsplit(".", 1)[-1] in {"lora_a", "lora_b", "m"} for path in trainable)
    return name in _ELEMENTWISE and adapters and len({v.dtype for v in trainable.values()}) == 1


def _copy(state: Any) -> Any:
    """The containers of a state anew, so that an optimizer can't write into the caller's."""
    return {key: _copy(value) for key, value in state.items()} if isinstance(state, dict) else state
