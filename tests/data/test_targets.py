"""The targets of a batch are the same as those from a loop over its rows and tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.data.rendering import Rendered
from mlxsched.data.targets import EncodedRows, Marker

END, BLANK, EOS = 7, 8, 9
ENDS = frozenset({END, EOS})


def is_blank(tokens: tuple[int, ...]) -> bool:
    return all(token == BLANK for token in tokens)


def expected(
    row: Rendered, ids: list[int], spans: list[list[int]], mask: bool
) -> tuple[list[int], list[bool], int]:
    """Tokens, targets and prompt length of one row, span by span."""
    count = len(row.spans or ())
    tokens = ids + [EOS] * (row.raw and ids[-1:] != [EOS])
    targets = [False] * len(tokens)
    for first, stop in spans[:count]:
        found = [at for at in range(max(first, stop - 4), stop) if ids[at] in ENDS]
        if found and not row.exact and is_blank(tuple(ids[found[-1] + 1 : stop])):
            stop = found[-1] + 1
        targets[first:stop] = [True] * (stop - first)
    if row.raw and count:
        targets[spans[count - 1][0] :] = [True] * (len(tokens) - spans[count - 1][0])
    if row.spans is None or not mask:
        targets = [True] * len(tokens)
        for first, stop in spans[count:]:
            targets[first:stop] = [False] * (stop - first)
    targets[:1] = [False] * len(targets[:1])
    return tokens, targets, spans[count - 1][0] if count else 0


@st.composite
def rows(draw: st.DrawFn, raw: bool) -> tuple[Rendered, list[int], list[list[int]]]:
    ids = draw(st.lists(st.sampled_from([1, 2, END, BLANK, EOS]), max_size=9))
    places = st.integers(0, len(ids))
    spans = [sorted(pair) for pair in draw(st.lists(st.tuples(places, places), max_size=3))]
    scored = draw(st.integers(0, len(spans)))
    characters = tuple((0, 0) for _ in spans)
    whole = scored == 0 and draw(st.booleans())
    exact = draw(st.booleans())
    row = Rendered("", None if whole else characters[:scored], characters[scored:], raw=raw, exact=exact)
    return row, ids, spans


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("mask", [True, False])
def test_tokens_targets_and_prompts(raw: bool, mask: bool) -> None:
    marker = Marker(mask, EOS, ENDS, is_blank)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(rows(raw), min_size=1, max_size=4))
    def same(batch: list[Any]) -> None:
        texts, ids, spans = zip(*batch, strict=True)
        tokens = [np.array(each, np.int32) for each in ids]
        flat = np.array([span for each in spans for span in each], np.int64).reshape(-1, 2)
        for row, one in zip(marker.mark(texts, tokens, flat), batch, strict=True):
            assert (row.tokens.tolist(), row.targets.tolist(), row.prompt_length) == expected(*one, mask)

    same()


def rows_of(*pairs: tuple[list[int], list[bool]]) -> EncodedRows:
    tokens = np.array([token for ids, _ in pairs for token in ids], np.int32)
    targets = np.array([target for _, marks in pairs for target in marks], np.bool_)
    return EncodedRows(tokens, targets, np.cumsum([len(ids) for ids, _ in pairs]), np.arange(len(pairs)))


def test_cutting_and_choosing_rows() -> None:
    found = rows_of(([1, 2, 3], [False, True, True]), ([4], [False]), ([5, 6], [False, True]))
    assert found.cut(3) is found
    cut = found.cut(2)
    assert [row.tokens.tolist() for row in cut] == [[1, 2], [4], [5, 6]]
    assert cut.target_ends().tolist() == [1, 1, 2]
    chosen = cut.of(np.array([True, False, True]))
    assert [row.tokens.tolist() for row in chosen] == [[1, 2], [5, 6]]
    assert [row.prompt_length for row in chosen] == [0, 2]


def test_an_end_is_among_the_last_four_targets_of_its_row() -> None:
    found = rows_of(
        ([0, END, 1, 1, 1, 1], [False] + [True] * 5),
        ([0, END, 1, 1, 1], [False] + [True] * 4),
        ([0, END, 1], [False, False, True]),
        ([0], [False]),
        ([0, END], [False, True]),
    )
    assert found.end_with(ENDS).tolist() == [False, True, False, False, True]
