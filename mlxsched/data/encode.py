"""From rendered texts to tokens and targets, a batch of rows at a time.

A fast tokenizer encodes a whole batch on all cores. Which characters a token came from follows from the tokens' bytes,
or else the tokenizer reports it. For others (and where a tokenizer encodes a batch differently from a single text) the
text before a span is encoded by itself, and the tokens that both have in common are those before the span.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.chat import ChatTemplate, Span
from mlxsched.data.pieces import Pieces
from mlxsched.data.rendering import Rendered
from mlxsched.data.token_bytes import Ends, TokenBytes

Tokens = NDArray[np.int32]
Offsets = list[Span] | Ends  # of each token: the characters that it came from


@dataclass(frozen=True, eq=False)
class Encoded:
    """One row as tokens; ``prompt_length`` is the number of tokens before the last span."""

    tokens: Tokens
    targets: NDArray[np.bool_]
    prompt_length: int


class Encoder:
    """Encodes rendered rows with one tokenizer (mlx-lm's wrapper, or one of transformers)."""

    def __init__(self, tokenizer: Any, mask_prompt: bool) -> None:
        self._tokenizer = tokenizer
        inner = getattr(tokenizer, "_tokenizer", tokenizer)
        # Tokenizers of transformers have a _tokenizer too: their part in Rust.
        self._inner = inner if hasattr(inner, "special_tokens_map") else tokenizer
        self._mask_prompt = mask_prompt
        self._bos, self._eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.end_ids = _end_ids(tokenizer)
        self._blank: dict[tuple[int, ...], bool] = {}
        self._batched: dict[bool, bool] = {}
        backend = getattr(self._inner, "backend_tokenizer", None)
        self._bytes = TokenBytes.of(backend) if hasattr(backend, "encode_batch_fast") else None
        self._pieces = Pieces.of(backend, self._bytes)

    def template(self) -> ChatTemplate | None:
        """The tokenizer's chat template, if it has one."""
        has = getattr(self._tokenizer, "has_chat_template", None)
        if has is None:
            has = getattr(self._tokenizer, "chat_template", None) is not None
        ends = [self._mark(end) for end in sorted(self.end_ids)]
        return ChatTemplate(self._tokenizer, ends) if has else None

    def identity(self) -> str:
        """A hash of everything that decides how text becomes tokens."""
        return _identity(self._tokenizer, self._inner, self.end_ids)

    def encode(self, batch: Sequence[Rendered]) -> list[Encoded]:
        """Tokens and targets of each row; either all rows of a batch are raw, or none."""
        if not batch:
            return []
        raw = batch[0].raw
        if not self._can_batch(batch[0].text, raw):
            return [self._finish(row, _array(self._single(row.text, raw)), None) for row in batch]
        if self._bytes is None or (raw and any(row.spans for row in batch)):
            return self._with_offsets(batch)
        return self._without_offsets(batch, self._bytes)

    def _with_offsets(self, batch: Sequence[Rendered]) -> list[Encoded]:
        texts, raw = [row.text for row in batch], batch[0].raw
        out = self._inner(texts, add_special_tokens=raw, return_offsets_mapping=True, verbose=False)
        rows = zip(batch, out["input_ids"], out["offset_mapping"], strict=True)
        return [self._finish(row, _array(ids), offsets) for row, ids, offsets in rows]

    def _without_offsets(self, batch: Sequence[Rendered], token_bytes: TokenBytes) -> list[Encoded]:
        """Encode in pieces, or else whole texts, without the copies that transformers makes."""
        texts, raw = [row.text for row in batch], batch[0].raw
        backend = self._inner.backend_tokenizer
        _remove_limits(backend)
        found = [None] * len(batch) if self._pieces is None else self._pieces.encode(texts, raw)
        others = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        whole = iter(backend.encode_batch_fast(others, add_special_tokens=raw))
        encoded = []
        for row, pieces in zip(batch, found, strict=True):
            ids = _array(next(whole).ids) if pieces is None else pieces
            has_spans = row.spans or row.unscored
            if has_spans and pieces is None and not token_bytes.match(row.text, ids.tolist()):
                encoded += self._with_offsets([row])
            else:
                encoded.append(self._finish(row, ids, token_bytes.ends(row.text, ids) if has_spans else []))
        return encoded

    def ends_turn(self, row: Encoded) -> bool:
        """Whether a token that ends a turn is among the last four targets: a template may write line breaks after it."""
        return not self.end_ids or not self.end_ids.isdisjoint(row.tokens[row.targets][-4:].tolist())

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
        return list(self._tokenizer.encode(text, add_special_tokens=raw))

    def _finish(self, row: Rendered, ids: Tokens, offsets: Offsets | None) -> Encoded:
        ids, offsets = self._without_doubled_marks(row, ids, offsets)
        closed = row.raw and isinstance(self._eos, int) and ids[-1:].tolist() != [self._eos]
        tokens = np.append(ids, np.int32(self._eos)) if closed else ids
        targets = np.zeros(len(tokens), np.bool_)
        prompt = 0
        for span in row.spans or ():
            prompt, stop = self._token_span(row, span, ids, offsets)
            targets[prompt : stop if row.exact else self._without_what_follows(ids, prompt, stop)] = True
        if row.raw and row.spans:  # the end token, appended here or by the tokenizer, belongs to the answer
            targets[prompt:] = True
        if row.spans is None or not self._mask_prompt:
            targets[:] = True
            for span in row.unscored:
                start, stop = self._token_span(row, span, ids, offsets)
                targets[start:stop] = False
        targets[:1] = False  # nothing precedes the first token
        return Encoded(tokens, targets, prompt)

    def _without_doubled_marks(
        self, row: Rendered, ids: Tokens, offsets: Offsets | None
    ) -> tuple[Tokens, Offsets | None]:
        """Drop the special tokens that the tokenizer added to a text which has them already.

        Texts made with a chat template begin with the begin token and end with the end token. Both twice would be
        learned: a second begin token is even a target.
        """
        if not row.raw or isinstance(offsets, Ends):
            return ids, offsets
        bos, eos = self._bos, self._eos
        if isinstance(bos, int) and ids[:2].tolist() == [bos, bos]:
            mark = self._mark(bos)
            if row.text.startswith(mark) and not row.text.startswith(mark * 2):  # written twice, it is meant
                ids, offsets = ids[1:], offsets and offsets[1:]
        if isinstance(eos, int) and ids[-2:].tolist() == [eos, eos]:
            mark = self._mark(eos)
            if row.text.endswith(mark) and not row.text.endswith(mark * 2):
                ids, offsets = ids[:-1], offsets and offsets[:-1]
        return ids, offsets

    def _mark(self, token: int) -> str:
        return str(self._inner.convert_ids_to_tokens(token))

    def _token_span(self, row: Rendered, span: Span, ids: Tokens, offsets: Offsets | None) -> Span:
        """First token of a span of characters, and the one after the last."""
        begin, end = span
        if offsets is None:
            return self._tokens_before(row, begin, ids), self._tokens_before(row, end, ids)
        if isinstance(offsets, Ends):
            return offsets.tokens(span)
        inside = [i for i, (a, b) in enumerate(offsets) if b > begin and a < end and b > a]
        return (inside[0], inside[-1] + 1) if inside else (len(ids), len(ids))

    def _without_what_follows(self, ids: Tokens, start: int, stop: int) -> int:
        """The end of a span without the line break that a template writes after an end token.

        The model stops at the end token, so what follows would be a target that it never gets to predict.
        """
        last = ids[max(start, stop - 4) : stop].tolist()
        for after in range(len(last)):
            if last[-1 - after] in self.end_ids:
                return stop - after if self._is_blank(tuple(last[len(last) - after :])) else stop
        return stop

    def _is_blank(self, ids: tuple[int, ...]) -> bool:
        if ids not in self._blank:
            self._blank[ids] = not self._tokenizer.decode(list(ids)).strip()
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
