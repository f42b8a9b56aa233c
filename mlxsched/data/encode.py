"""From rendered texts to tokens and targets, a batch of rows at a time.

A fast tokenizer encodes a whole batch on all cores. Which characters a token came from follows from the tokens' bytes,
or else the tokenizer reports it. For others (and where a tokenizer encodes a batch differently from a single text) the
text before a span is encoded by itself, and the tokens that both have in common are those before the span.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.chat import ChatTemplate, Span
from mlxsched.data.pieces import Pieces
from mlxsched.data.rendering import Rendered
from mlxsched.data.targets import EncodedRows, Marker, Tokens
from mlxsched.data.token_bytes import TokenBytes

Offsets = list[Span]  # of each token: the characters that it came from
# The tokens of each row, and where spans are among them: `Marker.mark`.
Placed = tuple[list[Tokens], NDArray[np.int64]]
_NONE = "\0 no such token"  # no text begins like this; if one did, its tokens would not be None


class Encoder:
    """Encodes rendered rows with one tokenizer (mlx-lm's wrapper, or one of transformers)."""

    def __init__(self, tokenizer: Any, mask_prompt: bool) -> None:
        self.tokenizer = tokenizer
        inner = getattr(tokenizer, "_tokenizer", tokenizer)
        # Tokenizers of transformers have a _tokenizer too: their part in Rust.
        self._inner = inner if hasattr(inner, "special_tokens_map") else tokenizer
        # The tokens that begin and end a text, with their own text.
        self._begin, self._end = map(self._marked, (tokenizer.bos_token_id, tokenizer.eos_token_id))
        self.end_ids = _end_ids(tokenizer)
        self._blank: dict[tuple[int, ...], bool] = {}
        self._marker = Marker(mask_prompt, self._end[0], self.end_ids, self._is_blank)
        self._batched: dict[bool, bool] = {}
        backend = getattr(self._inner, "backend_tokenizer", None)
        self._bytes = TokenBytes.of(backend) if hasattr(backend, "encode_batch_fast") else None
        self._pieces = Pieces.of(backend, self._bytes)

    def template(self) -> ChatTemplate | None:
        """The tokenizer's chat template, if it has one."""
        has = getattr(self.tokenizer, "has_chat_template", None)
        if has is None:
            has = getattr(self.tokenizer, "chat_template", None) is not None
        ends = [self._mark(end) for end in sorted(self.end_ids)]
        return ChatTemplate(self.tokenizer, ends) if has else None

    def identity(self) -> str:
        """A hash of everything that decides how text becomes tokens."""
        return _identity(self.tokenizer, self._inner, self.end_ids)

    def encode(self, batch: Sequence[Rendered]) -> EncodedRows:
        """Tokens and targets of rows, of which there is at least one; either all of them are raw, or none."""
        raw = batch[0].raw
        if not self._can_batch(batch[0].text, raw):
            placed = self._placed(batch, [(_array(self._single(row.text, raw)), None) for row in batch])
        elif self._bytes is None or (raw and any(row.spans for row in batch)):
            placed = self._with_offsets(batch)
        else:
            placed = self._without_offsets(batch, self._bytes)
        return self._marker.mark(batch, *placed)

    def _with_offsets(self, batch: Sequence[Rendered]) -> Placed:
        texts, raw = [row.text for row in batch], batch[0].raw
        out = self._inner(texts, add_special_tokens=raw, return_offsets_mapping=True, verbose=False)
        ids = map(_array, out["input_ids"])
        return self._placed(batch, list(zip(ids, out["offset_mapping"], strict=True)))

    def _placed(self, batch: Sequence[Rendered], encoded: Sequence[tuple[Tokens, Offsets | None]]) -> Placed:
        tokens, spans = [], []
        for row, (ids, offsets) in zip(batch, encoded, strict=True):
            ids, offsets = self._without_doubled_marks(row, ids, offsets)
            tokens.append(ids)
            spans += [self._token_span(row, span, ids, offsets) for span in _spans(row)]
        return tokens, np.array(spans, np.int64).reshape(-1, 2)

    def _without_offsets(self, batch: Sequence[Rendered], token_bytes: TokenBytes) -> Placed:
        """Encode in pieces, or else whole texts, without the copies that transformers makes."""
        texts, raw = [row.text for row in batch], batch[0].raw
        backend = self._inner.backend_tokenizer
        _remove_limits(backend)
        found = [None] * len(batch) if self._pieces is None else self._pieces.encode(texts, raw)
        others = [index for index, tokens in enumerate(found) if tokens is None]
        whole = iter(backend.encode_batch_fast([texts[index] for index in others], add_special_tokens=raw))
        ids = [_array(next(whole).ids) if tokens is None else tokens for tokens in found]
        if raw:  # without spans
            return self._placed(batch, [(tokens, None) for tokens in ids])
        spans = [_spans(row) for row in batch]
        odd = [i for i in others if spans[i] and not token_bytes.match(texts[i], ids[i].tolist())]
        placed = token_bytes.spans(texts, ids, spans)
        for index in odd:  # its tokens do not tell where they came from
            first = sum(map(len, spans[:index]))
            (ids[index],), placed[first : first + len(spans[index])] = self._with_offsets([batch[index]])
        return ids, placed

    def _can_batch(self, text: str, raw: bool) -> bool:
        """Whether the batched interface gives the same tokens as the single one; asked once, for the first text."""
        if raw not in self._batched:
            fast, single = bool(getattr(self._inner, "is_fast", False)), self._single(text, raw)
            self._batched[raw] = fast and (
                self._inner([text], add_special_tokens=raw, verbose=False)["input_ids"][0] == single
            )
            if self._pieces is not None and self._batched[raw]:
                (found,) = self._pieces.encode([text], raw)
                self._pieces = self._pieces if found is None or found.tolist() == single else None
        return self._batched[raw]

    def _single(self, text: str, raw: bool) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=raw))

    def _without_doubled_marks(
        self, row: Rendered, ids: Tokens, offsets: Offsets | None
    ) -> tuple[Tokens, Offsets | None]:
        """Drop the special tokens that the tokenizer added to a text which has them already.

        Texts made with a chat template begin with the begin token and end with the end token. Both twice would be
        learned: a second begin token is even a target.
        """
        if not row.raw:
            return ids, offsets
        text, (bos, first), (eos, last) = row.text, self._begin, self._end
        # A token that the text itself repeats is kept.
        if text.startswith(first) and not text.startswith(first * 2) and ids[:2].tolist() == [bos, bos]:
            ids, offsets = ids[1:], offsets and offsets[1:]
        if text.endswith(last) and not text.endswith(last * 2) and ids[-2:].tolist() == [eos, eos]:
            ids, offsets = ids[:-1], offsets and offsets[:-1]
        return ids, offsets

    def _marked(self, token: object) -> tuple[int | None, str]:
        return (token, self._mark(token)) if isinstance(token, int) else (None, _NONE)

    def _mark(self, token: int) -> str:
        return str(self._inner.convert_ids_to_tokens(token))

    def _token_span(self, row: Rendered, span: Span, ids: Tokens, offsets: Offsets | None) -> Span:
        """First token of a span of characters, and the one after the last."""
        begin, end = span
        if offsets is None:
            return self._tokens_before(row, begin, ids), self._tokens_before(row, end, ids)
        inside = [i for i, (a, b) in enumerate(offsets) if b > begin and a < end and b > a]
        return (inside[0], inside[-1] + 1) if inside else (len(ids), len(ids))

    def _is_blank(self, ids: tuple[int, ...]) -> bool:
        if ids not in self._blank:
            self._blank[ids] = not self.tokenizer.decode(list(ids)).strip()
        return self._blank[ids]

    def _tokens_before(self, row: Rendered, position: int, ids: Tokens) -> int:
        """How many tokens of the whole come before character ``position``."""
        if position >= len(row.text):
            return len(ids)
        before = _array(self._single(row.text[:position], row.raw))
        before, _ = self._without_doubled_marks(row, before, None)
        most = min(len(before), len(ids))
        return int(np.append(before[:most] != ids[:most], True).argmax())


def _remove_limits(backend: Any) -> None:
    """Turn off padding and truncation that another caller has set, as every call of transformers does."""
    if backend.padding:
        backend.no_padding()
    if backend.truncation:
        backend.no_truncation()


def _spans(row: Rendered) -> tuple[Span, ...]:
    """The spans of ``row``, then those that are never predicted."""
    return (*(row.spans or ()), *row.unscored)


def _array(ids: list[int]) -> Tokens:
    return np.asarray(ids, np.int32)


def _identity(tokenizer: Any, inner: Any, end_ids: frozenset[int]) -> str:
    backend = getattr(inner, "backend_tokenizer", None)
    facts = {
        "class": type(inner).__qualname__,
        "vocabulary": backend.to_str() if backend is not None else sorted(inner.get_vocab().items()),
        "template": str(getattr(inner, "chat_template", None)),
        "renderer": getattr(getattr(tokenizer, "_chat_template", None), "__module__", None),
        "special": {key: str(value) for key, value in sorted(inner.special_tokens_map.items())},
        "ends": sorted(end_ids),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _end_ids(tokenizer: Any) -> frozenset[int]:
    ends = getattr(tokenizer, "eos_token_ids", None)  # mlx-lm's wrapper has all tokens that end a turn
    several = ends if isinstance(ends, (set, frozenset, list, tuple)) else [ends]
    return frozenset(end for end in (*several, tokenizer.eos_token_id) if isinstance(end, int))
