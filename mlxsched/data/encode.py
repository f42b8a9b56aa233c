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
from mlxsched.data.rendering import Rendered
from mlxsched.data.token_bytes import Ends, TokenBytes

Offsets = list[Span] | Ends  # of each token: the characters that it came from


@dataclass(frozen=True, eq=False)
class Encoded:
    """One row as tokens; ``prompt_length`` is the number of tokens before the last span."""

    tokens: NDArray[np.int32]
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

    def template(self) -> ChatTemplate | None:
        """The tokenizer's chat template, if it has one."""
        has = getattr(self._tokenizer, "has_chat_template", None)
        if has is None:
            has = getattr(self._tokenizer, "chat_template", None) is not None
        ends = [self._mark(end) for end in sorted(self.end_ids)]
        return ChatTemplate(self._tokenizer, ends) if has else None

    def identity(self) -> str:
        """A hash of everything that decides how text becomes tokens."""
        inner = self._inner
        backend = getattr(inner, "backend_tokenizer", None)
        facts = {
            "class": type(inner).__qualname__,
            "vocabulary": backend.to_str() if backend is not None else sorted(inner.get_vocab().items()),
            "template": str(getattr(inner, "chat_template", None)),
            "renderer": getattr(getattr(self._tokenizer, "_chat_template", None), "__module__", None),
            "special": {key: str(value) for key, value in sorted(inner.special_tokens_map.items())},
            "ends": sorted(self.end_ids),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def encode(self, batch: Sequence[Rendered]) -> list[Encoded]:
        """Tokens and targets of each row; either all rows of a batch are raw, or none."""
        if not batch:
            return []
        texts, raw = [row.text for row in batch], batch[0].raw
        if not self._can_batch(texts[0], raw):
            return [self._finish(row, self._single(row.text, raw), None) for row in batch]
        if self._bytes is not None and not (raw and any(row.spans for row in batch)):
            # Without the copies that transformers makes, and without offsets.
            found = self._inner.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=raw)
            return [self._from_bytes(row, one.ids) for row, one in zip(batch, found, strict=True)]
        out = self._inner(texts, add_special_tokens=raw, return_offsets_mapping=True, verbose=False)
        rows = zip(batch, out["input_ids"], out["offset_mapping"], strict=True)
        return [self._finish(row, ids, offsets) for row, ids, offsets in rows]

    def _from_bytes(self, row: Rendered, ids: list[int]) -> Encoded:
        if not row.spans and not row.unscored:
            return self._finish(row, ids, [])
        ends = None if self._bytes is None else self._bytes.ends(row.text, ids)
        if ends is not None:
            return self._finish(row, ids, ends)
        out = self._inner([row.text], add_special_tokens=row.raw, return_offsets_mapping=True, verbose=False)
        return self._finish(row, out["input_ids"][0], out["offset_mapping"][0])

    def ends_turn(self, row: Encoded) -> bool:
        """Whether a token that ends a turn is among the last four targets: a template may write line breaks after it."""
        return not self.end_ids or not self.end_ids.isdisjoint(row.tokens[row.targets][-4:].tolist())

    def _can_batch(self, text: str, raw: bool) -> bool:
        """Whether the batched interface gives the same tokens as the single one; asked once, for the first text."""
        if raw not in self._batched:
            fast = bool(getattr(self._inner, "is_fast", False))
            # This call also removes a limit of length, or padding, that another caller has set.
            self._batched[raw] = fast and (
                self._inner([text], add_special_tokens=raw, verbose=False)["input_ids"][0]
                == self._single(text, raw)
            )
        return self._batched[raw]

    def _single(self, text: str, raw: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=raw))

    def _finish(self, row: Rendered, ids: list[int], offsets: Offsets | None) -> Encoded:
        ids, offsets = self._without_doubled_marks(row, ids, offsets)
        closed = row.raw and isinstance(self._eos, int) and ids[-1:] != [self._eos]
        tokens = np.asarray([*ids, self._eos] if closed else ids, np.int32)
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
        self, row: Rendered, ids: list[int], offsets: Offsets | None
    ) -> tuple[list[int], Offsets | None]:
        """Drop the special tokens that the tokenizer added to a text which has them already.

        Texts made with a chat template begin with the begin token and end with the end token. Both twice would be
        learned: a second begin token is even a target.
        """
        if not row.raw or isinstance(offsets, Ends):
            return ids, offsets
        bos, eos = self._bos, self._eos
        if isinstance(bos, int) and ids[:2] == [bos, bos]:
            mark = self._mark(bos)
            if row.text.startswith(mark) and not row.text.startswith(mark * 2):  # written twice, it is meant
                ids, offsets = ids[1:], offsets and offsets[1:]
        if isinstance(eos, int) and ids[-2:] == [eos, eos]:
            mark = self._mark(eos)
            if row.text.endswith(mark) and not row.text.endswith(mark * 2):
                ids, offsets = ids[:-1], offsets and offsets[:-1]
        return ids, offsets

    def _mark(self, token: int) -> str:
        return str(self._inner.convert_ids_to_tokens(token))

    def _token_span(self, row: Rendered, span: Span, ids: list[int], offsets: Offsets | None) -> Span:
        """First token of a span of characters, and the one after the last."""
        begin, end = span
        if offsets is None:
            return self._tokens_before(row, begin, ids), self._tokens_before(row, end, ids)
        if isinstance(offsets, Ends):
            return offsets.tokens(span)
        inside = [i for i, (a, b) in enumerate(offsets) if b > begin and a < end and b > a]
        return (inside[0], inside[-1] + 1) if inside else (len(ids), len(ids))

    def _without_what_follows(self, ids: list[int], start: int, stop: int) -> int:
        """The end of a span without the line break that a template writes after an end token.

        The model stops at the end token, so what follows would be a target that it never gets to predict.
        """
        for i in range(stop - 1, max(start, stop - 4) - 1, -1):
            if ids[i] in self.end_ids:
                return i + 1 if self._is_blank(tuple(ids[i + 1 : stop])) else stop
        return stop

    def _is_blank(self, ids: tuple[int, ...]) -> bool:
        if ids not in self._blank:
            self._blank[ids] = not self._tokenizer.decode(list(ids)).strip()
        return self._blank[ids]

    def _tokens_before(self, row: Rendered, position: int, ids: list[int]) -> int:
        """How many tokens of the whole come before character ``position``."""
        if position >= len(row.text):
            return len(ids)
        before = self._single(row.text[:position], row.raw)
        before, _ = self._without_doubled_marks(row, before, None)
        shared = 0
        while shared < min(len(before), len(ids)) and before[shared] == ids[shared]:
            shared += 1
        return shared


def _end_ids(tokenizer: Any) -> frozenset[int]:
    ends = getattr(tokenizer, "eos_token_ids", None)  # mlx-lm's wrapper has all tokens that end a turn
    several = ends if isinstance(ends, (set, frozenset, list, tuple)) else [ends]
    return frozenset(end for end in (*several, tokenizer.eos_token_id) if isinstance(end, int))
