"""Encodes texts piece by piece: a piece that was encoded before is looked up.

A tokenizer of the tokenizers library takes about 0.25 ms of CPU time for a chat of 100 words, nearly all of it to track
where each character went. But byte-level tokenizers first split a text by a regular expression and encode the parts
independently. The usual expressions always split before a single space between two characters that are not spaces, and
added tokens are split off first. So a text can be cut at these places, and the tokens of its pieces are those of the text.
A batch of texts is cut as one string, because a call for each text would add a third to the time.
NFC (Qwen's normalizer) never composes a character with a space next to it. If it changes a piece, the tokens no longer match
the piece, and the whole text is encoded at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import compress, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.token_bytes import TokenBytes

MOST_BYTES = 16 * 2**20
"""Of known pieces. Beyond it all are forgotten; frequent ones are known again after a few batches."""
_OBJECTS = 220  # bytes that a dictionary entry, a str and a bytes object take besides their content
# Marks in texts: a word that does not follow a space begins with `_CUT`, one that is only `_ROW` separates two rows, and
# `_KEPT` is a space at which a text is not cut. Marks among tokens: the end of a row, and a word whose tokens have other
# bytes.
_CUT, _ROW, _KEPT = _MARKS = "\0", "\1", "\2"
_CUT_ROW = f"{_CUT}{_ROW}"
_ROW_NUMBER, _ODD_NUMBER = -1, -2
_ROW_TOKEN, _ODD_TOKEN = (np.int32(number).tobytes() for number in (_ROW_NUMBER, _ODD_NUMBER))
# Texts are only cut at a space between two characters that no library treats as white space. In printable ASCII, few spaces
# have other neighbors.
_BESIDE_SPACES = (" \n", "\n ", f" {_CUT}")
_PRINTABLE = bytes([*map(ord, (*_MARKS, "\n")), *range(32, 127)])
_BETWEEN = re.compile(rf"{_KEPT}(?<=[!-~\w]{_KEPT})(?=[!-~\w])")
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
        self._known: dict[str, bytes] = {}
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
        if self._size > MOST_BYTES:
            self._known, self._size = {}, 0
        before, after = around
        self._known |= {_CUT: b"", _CUT_ROW: after + _ROW_TOKEN + before}
        is_cut = [True] * len(texts)
        if any(map("".join(texts).__contains__, _MARKS)):
            is_cut = [not any(map(text.__contains__, _MARKS)) for text in texts]
        tokens = np.frombuffer(self._look_up(self._words([*compress(texts, is_cut)])), np.int32)
        rows = iter(_between_rows(tokens))
        return [next(rows) if cut else None for cut in is_cut]

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

    def _words(self, texts: Sequence[str]) -> list[str]:
        """All words of ``texts``, with the marks described above."""
        between = f"{_CUT_ROW}{_CUT}"
        joined = between.join(["", *texts, ""])
        if joined.encode("utf-8", "surrogatepass").translate(None, _PRINTABLE):
            joined = between.join(["", *map(_with_kept_spaces, texts), ""])
        if self._added is not None:
            joined = _CUT.join(self._added.split(joined))
        joined = joined.replace("  ", _KEPT * 2)
        if _KEPT in joined:  # a run of three is two of them and a space
            joined = joined.replace(f"{_KEPT} ", _KEPT * 2)
        for pair in _BESIDE_SPACES:
            joined = joined.replace(pair, pair.replace(" ", _KEPT))
        return joined.replace(_CUT, f" {_CUT}")[1:].split(" ")

    def _look_up(self, words: list[str]) -> bytes:
        """The tokens of the words."""
        try:
            return b"".join(map(self._known.get, words))  # type: ignore[arg-type]
        except TypeError:  # None is among them
            self._learn(sorted(set(words).difference(self._known)))
            return b"".join(map(self._known.__getitem__, words))

    def _learn(self, words: Sequence[str]) -> None:
        pieces = [_piece(word) for word in words]
        encoded = self._backend.encode_batch_fast(pieces, add_special_tokens=False)
        for word, piece, one in zip(words, pieces, encoded, strict=True):
            self._known[word] = _bytes(one.ids) if self._bytes.match(piece, one.ids) else _ODD_TOKEN
            self._size += _OBJECTS + len(word) + 4 * len(one.ids)


def _with_kept_spaces(text: str) -> str:
    """``text`` with `_KEPT` for the spaces that are next to white space, or may be."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return _BETWEEN.sub(" ", text.replace(" ", _KEPT))


def _piece(word: str) -> str:
    """The part of a text that ``word`` stands for."""
    return (word[1:] if word.startswith(_CUT) else f" {word}").replace(_KEPT, " ")


def _between_rows(tokens: NDArray[np.int32]) -> Iterator[NDArray[np.int32] | None]:
    """The tokens of each row; None if the tokens of one of its pieces have other bytes than the piece."""
    marks = np.flatnonzero(tokens == _ROW_NUMBER)
    odd = set(np.searchsorted(marks, np.flatnonzero(tokens == _ODD_NUMBER)).tolist())
    for number, (start, stop) in enumerate(pairwise(marks.tolist()), 1):
        yield None if number in odd else tokens[start + 1 : stop]


def _is_plain(token: Any) -> bool:
    """Whether an added token is found everywhere, and matches nothing but its own characters."""
    sees_others = token.lstrip or token.rstrip or token.single_word
    return not sees_others and re.fullmatch(r"[^\s\0-\2]+", token.content) is not None


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
