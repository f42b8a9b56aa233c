"""A name for stored activations, made of everything that their bits depend on."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from numpy.typing import NDArray

from mlxsched.model.fast.checkpointing import distinct
from mlxsched.model.fast.exponential import exp
from mlxsched.model.fast.frozen_prefix import PrefixBoundary
from mlxsched.model.fast.parted_attention import attention
from mlxsched.model.trees import flatten
from mlxsched.platform.blas import threads
from mlxsched.platform.machine import describe


def activation_key(
    model: Module,
    config: Mapping[str, Any],
    boundary: PrefixBoundary,
    arrays: Mapping[str, NDArray[Any]],
    **more: object,
) -> str:
    """A hash over the frozen weights, the model's ``config`` and code, the machine, ``arrays`` and ``more``.

    The weights are hashed as they are in memory, not as a file's name or date: quantized, widened, fused or edited
    ones differ. That takes about a second for each gigabyte, far less than computing the activations.
    """
    facts = {
        "weights": _hash_of_weights(model, boundary),
        "config": config,
        "code": [_hash_of_code(f) for f in (type(model).__call__, attention, exp)],
        "tap": [boundary.below, boundary.width, str(boundary.dtype), str(boundary.blocks)],
        "machine": _machine(),
        "arrays": {name: _sha256(array) for name, array in arrays.items()},
        **more,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _hash_of_weights(model: Module, boundary: PrefixBoundary) -> str:
    """Of everything below the boundary; the layers from there on have no influence."""
    upper = {id(layer) for layer in distinct(model.layers)[boundary.below :]}
    above = tuple(f"{name}." for name, module in model.named_modules() if id(module) in upper)
    digest = hashlib.sha256()
    for path, value in sorted(flatten(model.parameters()).items()):
        if not path.startswith(above):
            digest.update(f"{path} {value.dtype} {value.shape} ".encode())
            digest.update(np.asarray(mx.flatten(value).view(mx.uint8)).data)
    return digest.hexdigest()


def _hash_of_code(function: Callable[..., Any]) -> str:
    """Of the file that defines ``function``: a model's class may have come with the model."""
    try:
        return hashlib.sha256(Path(inspect.getfile(function)).read_bytes()).hexdigest()
    except (OSError, TypeError):  # defined interactively: there is no file
        return ""


def _machine() -> list[object]:
    """What else decides the last bits: versions of MLX, device, BLAS library and its threads."""
    machine = describe()
    versions = {name: version for name, version in machine.versions.items() if name.startswith("mlx")}
    return [versions, machine.device, machine.chip, machine.blas, machine.blas_library, threads()]


def _sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
