"""Which modules of a model LoRA can go into, by the names that ``lora_parameters.keys`` uses.

A key is the name of a module inside a layer, such as ``self_attn.q_proj``, or inside the whole model, such as
``model.embed_tokens`` or ``lm_head``. Without keys, mlx-lm adapts every linear layer and embedding of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.base import Module

from mlxsched.errors import UsageError
from mlxsched.model.fast.patching import dropout_off
from mlxsched.text import closest

_SHOWN = 12


def is_adapted(module: Module) -> bool:
    """Whether ``module`` is one of mlx-lm's LoRA or DoRA modules around another one."""
    return "lora_a" in module and "lora_b" in module


def base_of(module: Module) -> Module:
    """The module that a LoRA or DoRA module was put around."""
    base: Module = module["linear"] if "linear" in module else module["embedding"]
    return base


def layer_keys(layers: Sequence[Module]) -> list[str]:
    """The keys that mlx-lm takes by default: every adaptable module inside ``layers``."""
    return sorted({name for layer in layers for name in _adaptable(layer)})


def check_keys(model: Module, layers: Sequence[Module], keys: Sequence[str]) -> None:
    """Refuse ``keys`` that match nothing in the trained ``layers`` nor in the whole model.

    mlx-lm skips such a key silently, and the run trains less than was asked for.
    """
    inside = layer_keys(layers)
    known = [*inside, *_adaptable(model)]
    missing = [key for key in keys if key not in set(known)]
    if missing:
        hints = "; ".join(f"{key!r}{_near(key, known)}" for key in missing)
        shown = ", ".join(inside[:_SHOWN]) + (", ..." if len(inside) > _SHOWN else "")
        raise UsageError(
            f"lora_parameters.keys: no linear layer or embedding of the trained layers matches {hints}. "
            f"The layers have {shown}."
        )


def _near(key: str, known: Sequence[str]) -> str:
    """``(did you mean ...?)`` for a key without its prefix, as PEFT has them, or a misspelled one."""
    same_end = [
        name for name in known if name.endswith(f".{key}") or name.split(".")[-1] == key.split(".")[-1]
    ]
    near = same_end[0] if same_end else closest(key, known)
    return f" (did you mean {near!r}?)" if near else ""


def _adaptable(module: Module) -> Iterator[str]:
    from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

    kinds: Any = (nn.Linear, nn.QuantizedLinear, nn.Embedding, nn.QuantizedEmbedding)
    kinds = (*kinds, SwitchLinear, QuantizedSwitchLinear)
    return (name for name, m in module.named_modules() if isinstance(m, kinds) or hasattr(m, "to_lora"))


def trains(model: Module) -> bool:
    """Whether a loss of ``model`` can be differentiated, in its present state.

    Only traced, on one row of 4 tokens: nothing is computed, so it takes milliseconds.
    """
    tree = model.trainable_parameters()

    def loss_of(tree: Any) -> mx.array:
        model.update(tree)
        logits: mx.array = model(mx.zeros((1, 4), mx.int32))
        return logits.astype(mx.float32).sum()

    try:
        with dropout_off(model):
            mx.grad(loss_of)(tree)
    except Exception:  # noqa: BLE001 whatever a model's code raises, it can't be trained like this
        return False
    finally:
        model.update(tree)  # tracing left placeholders
    return True
