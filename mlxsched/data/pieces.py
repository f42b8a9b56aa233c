"""Encodes texts piece by piece: a piece that was encoded before is looked up.

A tokenizer of the tokenizers library takes about 0.25 ms of CPU time for a chat of 100 words, nearly all of it to track
where each character went. But byte-level tokenizers first split a text by a regular expression and encode the parts
independently. The usual expressions always split before a single space between two characters that are not spaces, and
added tokens are split off first. So a text can be cut at these places, and the tokens of its pieces are those of the text.
NFC (Qwen's normalizer) never composes a character with a space next to it. If it changes a piece, the tokens no longer match
the piece, and the whole text is encoded at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.token_bytes import TokenBytes

MOST_BYTES = 16 * 2**20
"""Of known pieces. Beyond it all are forgotten; frequent ones are known again after a few batches."""
_OBJECTS = 220  # bytes that a dictionary entry, a str and a bytes object take besides their content
_CUT = "\0"
# Only between characters that no library treats as white space.
_SPACE = re.compile(r" (?<=[!-~\w] )(?=[!-~\w])")
# No alternative matches a space after a character that is not white space, and none looks ahead beyond the space:
# `\s+(?!\S)` leaves the last of several spaces to the next word, and here there is only one.
_LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_BUNDLED = r"[A-Z]{1,2}\d{1,4}|\d{1,4}| ?[a-z']+|[A-Z][a-z]+|[A-Z]{2,}|[A-Z]|\s|[^\sA-Za-z\d]"
_PATTERNS = {_LLAMA, _LLAMA.replace("{1,3}", ""), _BUNDLED}  # the second is Qwen's


class Pieces:
    """Encodes with ``backend``, a tokenizer of the tokenizers library whose tokens are the bytes of the text."""

    def __init__(self, backend: Any, token_bytes: TokenBytes) -> None:
        self._backend = backend
        self._bytes = token_bytes
        added = (token.content for token in backend.get_added_tokens_decoder().values())
        longest_first = sorted(added, key=len, reverse=True)
        self._added = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None
        self._around: tuple[bytes, bytes] | None = None  # the tokens that are put before and after a text
        self._known: dict[str, bytes | None] = {}  # None: the tokens are not the bytes of the piece
        self._size = 0

    @classmethod
    def of(cls, backend: Any, token_bytes: TokenBytes | None) -> Pieces | None:
        """For a tokenizer that splits at spaces as described above; None for others.

        The library searches for added tokens in two passes: those with ``normalized`` in what the others leave. `_cut` makes
        one pass, so all added tokens must agree in ``normalized``.
        """
        if token_bytes is None or backend.model.dropout or backend.pre_tokenizer is None:
            return None
        added = backend.get_added_tokens_decoder().values()
        plain = all(map(_is_plain, added)) and len({token.normalized for token in added}) < 2
        splits = plain and _splits_at_spaces(json.loads(backend.pre_tokenizer.__getstate__()))
        return cls(backend, token_bytes) if splits else None

    def encode(self, texts: Sequence[str], special: bool) -> list[NDArray[np.int32] | None]:
        """The tokens of each text; None for a text that can't be cut, and for all while the tokenizer pads or truncates.

        Args:
            texts: what to encode.
            special: whether to add the tokens that the tokenizer puts around a text.
        """
        if special and self._around is None and not self._is_altered():
            self._around = self._find_around(next(filter(None, texts), ""))
        around = self._around if special else (b"", b"")
        if around is None or self._is_altered():
            return [None] * len(texts)
        pieces = [self._cut(text) for text in texts]
        if self._size > MOST_BYTES:
            self._known, self._size = {}, 0
        self._learn(sorted(set().union(*pieces).difference(self._known)))
        return [self._joined(found, *around) for found in pieces]

    def _is_altered(self) -> bool:
        """Whether another caller has turned on a setting that changes tokens, which may happen at any time."""
        backend = self._backend
        return bool(backend.padding or backend.truncation or backend.encode_special_tokens)

    def _find_around(self, text: str) -> tuple[bytes, bytes] | None:
        """The tokens before and after those of ``text``; None if it has none, or if others are between them."""
        inner = self._backend.encode(text, add_special_tokens=False).ids
        if not inner:
            return None
        whole = self._backend.encode(text)
        before, inside, after = bytes(whole.special_tokens_mask).partition(bytes(len(inner)))
        first, last = len(before), len(before) + len(inside)
        usual = 0 not in before + after and whole.ids[first:last] == inner
        return (_bytes(whole.ids[:first]), _bytes(whole.ids[last:])) if usual else None

    def _cut(self, text: str) -> list[str]:
        if _CUT in text:
            return [text]
        if self._added is not None:
            text = _CUT.join(self._added.split(text))
        return _SPACE.sub(f"{_CUT} ", text).split(_CUT)

    def _learn(self, pieces: Sequence[str]) -> None:
        encoded = self._backend.encode_batch_fast(pieces, add_special_tokens=False)
        for piece, one in zip(pieces, encoded, strict=True):
            self._known[piece] = _bytes(one.ids) if self._bytes.match(piece, one.ids) else None
            self._size += _OBJECTS + len(piece) + 4 * len(one.ids)

    def _joined(self, pieces: list[str], before: bytes, after: bytes) -> NDArray[np.int32] | None:
        found = [self._known[piece] for piece in pieces]
        known = [tokens for tokens in found if tokens is not None]
        return (
            np.frombuffer(b"".join([before, *known, after]), np.int32) if len(known) == len(found) else None
        )


def _is_plain(token: Any) -> bool:
    """Whether an added token is found everywhere, and matches nothing but its own characters."""
    sees_others = token.lstrip or token.rstrip or token.single_word
    return not sees_others and re.fullmatch(r"[^\s\0]+", token.content) is not None


def _bytes(ids: list[int]) -> bytes:
    return np.asarray(ids, np.int32).tobytes()


def _splits_at_spaces(step: dict[str, Any]) -> bool:
    *others, last = step["pretokenizers"] if step["type"] == "Sequence" else [step]
    splits = [other["type"] == "Split" and _is_usual(other) for other in others]
    known = all(usual or other["type"] == "Digits" for usual, other in zip(splits, others, strict=True))
    return known and last["type"] == "ByteLevel" and (last["use_regex"] or any(splits))


def _is_usual(split: dict[str, Any]) -> bool:
    return (
        split["pattern"].get("Regex") in _PATTERNS and split["behavior"] == "Isolated" and not split["invert"]
    )
