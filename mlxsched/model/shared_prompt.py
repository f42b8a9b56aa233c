"""What all prompts begin with (a system prompt, tool definitions), read once for all answers.

Each answer starts from a copy of the caches behind it. The loss of the model is not involved, so mlx-lm's own caches serve.
"""

from __future__ import annotations

import logging
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

_LOG = logging.getLogger(__name__)
LEAST = 8  # tokens; below, reading them once saves less than the extra pass takes
_AT_ONCE = 2048  # tokens of a pass: as mlx-lm's generator reads prompts
_TOLERANCE, _TOLERANCE_HALF = 1e-3, 5e-2  # of the largest logit; the order of sums differs


def shared_caches(model: Module, prompts: list[list[int]]) -> tuple[int, list[Any] | None]:
    """How many tokens all of ``prompts`` begin with, and the model's caches behind them.

    0 and None where it is not worthwhile, or where prompts that continue from the caches together get another next token,
    or other logits, than each of them alone and as a whole.
    """
    length = shared_length(prompts)
    if len(prompts) < 2 or length < LEAST:
        return 0, None
    try:
        caches = _read(model, prompts[0][:length])
        if _agrees(model, caches, _two(prompts), length):
            return length, caches
    except Exception:  # noqa: BLE001 a model may have caches that can't be copied; it still answers whole prompts
        _LOG.debug("shared prompt", exc_info=True)
    return 0, None


def shared_length(prompts: list[list[int]]) -> int:
    """How many tokens all of ``prompts`` begin with, each keeping at least one of its own.

    >>> shared_length([[1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 9]]), shared_length([])
    (2, 0)
    """
    if not prompts:
        return 0
    length, first = min(map(len, prompts)) - 1, prompts[0]
    for prompt in prompts:
        length = next((i for i in range(length) if prompt[i] != first[i]), length)
    return length


def _read(model: Any, tokens: list[int]) -> list[Any]:
    from mlx_lm.models.cache import make_prompt_cache

    caches: list[Any] = make_prompt_cache(model)
    for start in range(0, len(tokens), _AT_ONCE):
        model(mx.array(tokens[start : start + _AT_ONCE])[None], cache=caches)
        mx.eval([cache.state for cache in caches])
    return caches


def _agrees(model: Any, caches: list[Any], prompts: list[list[int]], length: int) -> bool:
    """Whether ``prompts`` get the same next token behind copies of ``caches``, merged into a batch, and similar logits."""
    expected = mx.stack([model(mx.array(prompt)[None])[0, -1] for prompt in prompts])
    got = _behind(model, caches, [prompt[length:] for prompt in prompts])
    tolerance = _TOLERANCE if expected.dtype == mx.float32 else _TOLERANCE_HALF
    apart = mx.abs(got.astype(mx.float32) - expected.astype(mx.float32)).max()
    close = apart <= tolerance * mx.abs(expected.astype(mx.float32)).max()
    return bool((close & mx.all(got.argmax(-1) == expected.argmax(-1))).item())


def _behind(model: Any, caches: list[Any], rests: list[list[int]]) -> mx.array:
    """The logits after ``rests``, read as mlx-lm's generator reads them: padded on the right up to the last token."""
    batch = [type(cache).merge([cache] * len(rests)) for cache in caches]
    lengths = [len(rest) - 1 for rest in rests]
    padding = [max(lengths) - length for length in lengths]
    if max(padding):
        for cache in batch:
            cache.prepare(lengths=lengths, right_padding=padding)
    if max(lengths):
        model(
            mx.array([rest[:-1] + [0] * more for rest, more in zip(rests, padding, strict=True)]), cache=batch
        )
    if max(padding):
        for cache in batch:
            cache.finalize()
    logits: mx.array = model(mx.array([rest[-1:] for rest in rests]), cache=batch)
    return logits[:, -1]


def _two(prompts: list[list[int]]) -> list[list[int]]:
    """The shortest of ``prompts``, and the shortest that is longer, if there is one: short, since all logits are computed."""
    first = min(prompts, key=len)
    return [first, min((one for one in prompts if len(one) > len(first)), key=len, default=first)]
