"""The bytes of each token of a byte-level tokenizer, and from them which tokens a span of characters came from.

A tokenizer that tracks the characters of each token takes half as long again, and creates a Python object for each. If
the concatenated bytes of the tokens equal the text, the position of every token follows from the lengths alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.chat import Span

_NO_TEXT = b"\xff"  # never in UTF-8: a text with such a token does not match
# Steps that neither change the text, nor remove anything, nor move the reported start of a token.
_KEEPING = {"ByteLevel", "Digits", "Sequence", "Split", "TemplateProcessing"}


class TokenBytes:
    """Finds tokens by the bytes of ``backend``, a tokenizer of the tokenizers library."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._added = {number: token.content for number, token in backend.get_added_tokens_decoder().items()}
        self._known: dict[int, bytes] = {}
        self._lengths = np.zeros(1 + max(backend.get_vocab(with_added_tokens=True).values()), np.int64)

    @classmethod
    def of(cls, backend: Any) -> TokenBytes | None:
        """For a tokenizer whose tokens are bytes; None for others."""
        is_byte_level = (
            type(backend.model).__name__ == "BPE" and type(backend.decoder).__name__ == "ByteLevel"
        )
        # Each kind of step reads another of the two settings that move where a token begins.
        steps = ((backend.pre_tokenizer, "add_prefix_space"), (backend.post_processor, "trim_offsets"))
        keeps = all(step is None or _keeps(json.loads(step.__getstate__()), moves) for step, moves in steps)
        return cls(backend) if is_byte_level and keeps and _keeps_most_texts(backend) else None

    def match(self, text: str, ids: Sequence[int]) -> bool:
        """Whether the bytes of these tokens are those of ``text``."""
        return b"".join([self._known.get(number) or self._look_up(number) for number in ids]) == text.encode()

    def spans(
        self, texts: Sequence[str], tokens: Sequence[NDArray[np.int32]], spans: Sequence[Sequence[Span]]
    ) -> NDArray[np.int64]:
        """The tokens that cover spans of characters, given that the tokens of each text match it.

        Args:
            texts: any number.
            tokens: of each text.
            spans: of each text, as characters.

        Returns:
            For all spans, text by text: the first token that has characters of it, counted from the beginning of the
            text, and the one after the last; twice the number of tokens if none has. ``[spans, 2]``.
        """
        counts = np.fromiter(map(len, tokens), np.int64, len(tokens))
        owners = np.repeat(np.arange(len(spans)), list(map(len, spans)))
        if not len(owners):
            return np.zeros((0, 2), np.int64)
        ends = np.cumsum(self._lengths[np.concatenate(tokens)])  # bytes up to the end of each token
        begins = (np.cumsum(counts) - counts)[owners]
        before = np.concatenate([np.zeros(1, np.int64), ends])[begins]
        places = chain.from_iterable(map(_bytes_at, texts, spans))
        begin, end = np.fromiter(places, np.int64).reshape(-1, 2).T + before
        first = ends.searchsorted(begin, "right") - begins
        stop = np.minimum(ends.searchsorted(end) + 1 - begins, counts[owners])
        stop[end == before] = 0
        exists = first < stop
        return np.stack([np.where(exists, each, counts[owners]) for each in (first, stop)], axis=1)

    def _look_up(self, number: int) -> bytes:
        found: bytes
        if number in self._added:
            found = self._added[number].encode()
        else:
            characters = self._backend.id_to_token(number) or ""
            found = bytes(_bytes_of_characters().get(c, 255) for c in characters) or _NO_TEXT
        self._known[number] = found
        self._lengths[number] = len(found)
        return found


def _bytes_at(text: str, spans: Sequence[Span]) -> Iterable[int]:
    """The positions of the spans in the bytes of ``text``."""
    places = chain.from_iterable(spans)
    return places if text.isascii() else [len(text[:place].encode()) for place in places]


def _keeps_most_texts(backend: Any) -> bool:
    """Whether there is no normalizer, or one that leaves most texts unchanged; the tokens of other texts do not match.

    With NFC, an added token that is ``normalized`` may be found where the text has different bytes.
    """
    if backend.normalizer is None:
        return True
    added = backend.get_added_tokens_decoder().values()
    return type(backend.normalizer).__name__ == "NFC" and not any(token.normalized for token in added)


def _keeps(step: dict[str, Any], moves: str) -> bool:
    removes = step["type"] == "Split" and step["behavior"] == "Removed"
    parts = step.get("pretokenizers", step.get("processors", []))
    known = step["type"] in _KEEPING and not removes and not step.get(moves)
    return known and all(_keeps(part, moves) for part in parts)


@cache
def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, and the others follow from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
