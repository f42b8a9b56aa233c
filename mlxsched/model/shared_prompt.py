"""Reads prompts: their common prefix (a system prompt, tool definitions) once, and several prompts as a batch.

Each answer starts from a copy of the caches after the shared prefix. No gradients are needed, so mlx-lm's own caches
suffice. Both optimizations are tested first: in mlx-lm 0.32.2, batching prompts of different lengths changes the logits
of afm7, baichuan_m1, jamba, mamba, nemotron_h and rwkv7 (by 0.4 to 100% of the largest logit), since their recurrent
layers or positions include the padding. Single prompts, with or without a shared prefix, are correct for these models
as well.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import mlx.core as mx
from mlx.nn.layers.base import Module

from mlxsched.model.load import room_for_answer
from mlxsched.model.trees import flatten
from mlxsched.platform.precision import multiplies_in_tf32

_LOG = logging.getLogger(__name__)
LEAST = 8  # tokens; sharing a shorter prefix saves less than the extra pass costs
_OWN = 4  # tokens of the compared prompts, if there are such: nemotron_h is right behind padding alone, with nothing of its own
_STEP = 256  # tokens by which mlx-lm's caches grow
_AT_ONCE = 2048  # tokens of a pass: as mlx-lm's generator reads prompts
# Of the largest logit, since the order of sums differs: in float32, with products in TF32, and in half precision. The one for
# TF32 stays below the smallest fault above; where it is too strict, prompts are read one by one.
_TOLERANCE, _TOLERANCE_TF32, _TOLERANCE_HALF = 1e-3, 3e-3, 5e-2


class Reading(NamedTuple):
    """The model's ``caches`` after the first ``length`` tokens of all prompts, or 0 and None.

    ``together``: a batch of prompts gives the same results as single prompts.
    """

    length: int = 0
    caches: list[Any] | None = None
    together: bool = True


def reading_of(model: Module, prompts: list[list[int]], *, shared: bool = True) -> Reading:
    """The fastest way to read ``prompts`` that gives the same next tokens and logits as reading each whole prompt
    alone.

    ``shared``: their common prefix may be read once, which happens if it is worthwhile.
    """
    if len(prompts) < 2:
        return Reading()
    length = shared_length(prompts) if shared else 0
    compared = _two(prompts, length)
    try:
        expected = mx.concatenate([_behind(model, _read(model, []), [prompt]) for prompt in compared])
        for reading in _ways(model, prompts[0], length if length >= LEAST else 0):
            if _agrees(model, reading, compared, expected):
                return reading
    except Exception:  # noqa: BLE001 a model may have caches that can't be merged; it still answers one by one
        _LOG.debug("reading prompts", exc_info=True)
    return Reading(together=False)


def _ways(model: Module, prompt: list[int], length: int) -> Iterator[Reading]:
    """The ways to read prompts that share the first ``length`` tokens of ``prompt``, fastest first."""
    caches = _read(model, prompt[:length]) if length else None
    if caches is not None:
        yield Reading(length, caches)
    yield Reading()
    if caches is not None:
        yield Reading(length, caches, together=False)


def shared_length(prompts: list[list[int]]) -> int:
    """The length of the common prefix of ``prompts``; each keeps at least one token of its own.

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


def cache_size(model: Module, length: int) -> int:
    """The bytes of the model's caches for a sequence of ``length`` tokens, with room to grow.

    Measured at two lengths, since the state of some layers has a fixed size, and that of others grows with each token.
    """
    positions = room_for_answer(model, 0)
    if positions < 2 * _STEP:
        return _bytes(_read(model, [0] * int(positions)))
    first, second = (_bytes(_read(model, [0] * tokens)) for tokens in (_STEP, 2 * _STEP))
    return first + (second - first) * length // _STEP


def _bytes(caches: list[Any]) -> int:
    arrays = flatten([cache.state for cache in caches]).values()
    return sum(array.nbytes for array in arrays if isinstance(array, mx.array))


def _agrees(model: Any, reading: Reading, prompts: list[list[int]], expected: mx.array) -> bool:
    """Whether ``prompts`` read that way have the next tokens of the logits ``expected``, and similar logits."""
    try:
        caches = _read(model, []) if reading.caches is None else reading.caches
        rests = [prompt[reading.length :] for prompt in prompts]
        parts = [rests] if reading.together else [[rest] for rest in rests]
        got = mx.concatenate([_behind(model, caches, part) for part in parts])
        tolerance = _TOLERANCE_HALF
        if expected.dtype == mx.float32:
            tolerance = _TOLERANCE_TF32 if multiplies_in_tf32() else _TOLERANCE
        apart = mx.abs(got.astype(mx.float32) - expected.astype(mx.float32)).max()
        close = apart <= tolerance * mx.abs(expected.astype(mx.float32)).max()
        return bool((close & mx.all(got.argmax(-1) == expected.argmax(-1))).item())
    except Exception:  # noqa: BLE001 bailing_moe_linear takes no caches that are not empty
        _LOG.debug("reading prompts %s", reading, exc_info=True)
        return False


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


def _two(prompts: list[list[int]], length: int) -> list[list[int]]:
    """A short one of ``prompts`` and a longer one, if there is one; with a few tokens behind the first ``length``, if possible."""
    ordered = sorted(prompts, key=len)
    first = next((one for one in ordered if len(one) >= length + _OWN), ordered[0])
    return [first, next((one for one in ordered if len(one) > len(first)), ordered[0])]
