"""Rows that begin other rows: which are joined, with which targets, and what a user is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.data import DataOptions, joining, load_dataset
from mlxsched.data.check import check
from mlxsched.data.joining import NO_ROW, find_continuations, joined, related_fix
from mlxsched.data.rows import Rows, rows_in_memory

Write = Callable[..., Path]
TURNS = ["the sum of A1 and A2", "=SUM(A1,A2)", "and of B1", "=SUM(A1,A2,B1)", "thank you", "hello there"]


def messages(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]


def rows_of(*rows: list[int]) -> Rows:
    tokens = [np.array(row, np.int32) for row in rows]
    return rows_in_memory((row, np.arange(len(row)) > 0) for row in tokens)


def contexts(rows: Rows) -> Counter[tuple[int, ...]]:
    """Each scored token with all tokens before it, and how often: what decides the sum of the losses."""
    found: Counter[tuple[int, ...]] = Counter()
    for tokens, targets in rows:
        for place, times in enumerate(targets.tolist()):
            found[tuple(tokens[: place + 1].tolist())] += int(times)
    return +found


_tokens = st.lists(st.integers(0, 2), min_size=2, max_size=7)


@settings(max_examples=40)
@given(st.lists(_tokens, min_size=1, max_size=12), st.integers(1, 20))
def test_joining_keeps_every_scored_token_and_leaves_no_row_that_could_be_joined(
    drawn: list[list[int]], block: int
) -> None:
    rows = rows_of(*drawn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joining, "_BLOCK", block)
        into = find_continuations(rows)
    after = [int(row) for row in into if row != NO_ROW]
    assert len(after) == len(set(after)), "a row continues one row"
    for index, row in enumerate(into.tolist()):
        if row != NO_ROW:
            assert len(drawn[row]) > len(drawn[index]) and drawn[row][: len(drawn[index])] == drawn[index]
    free = [n for n in range(len(drawn)) if n not in after]  # rows that continue none
    for index in np.flatnonzero(into == NO_ROW):
        assert not any(drawn[n][: len(drawn[index])] == drawn[index] != drawn[n] for n in free)
    result = joined(rows, into)
    assert len(result) == int((into == NO_ROW).sum())
    assert contexts(result) == contexts(rows)


def test_of_several_continuations_the_others_stay_whole_and_so_do_duplicates() -> None:
    rows = rows_of([1, 2], [1, 2, 3], [1, 2, 4], [1, 2, 3], [9, 9], [9, 9])
    into = find_continuations(rows)
    assert into.tolist() == [1, NO_ROW, NO_ROW, NO_ROW, NO_ROW, NO_ROW]
    assert [row.tokens.tolist() for row in joined(rows, into)] == [
        [1, 2, 3],
        [1, 2, 4],
        [1, 2, 3],
        [9, 9],
        [9, 9],
    ]


def test_a_row_takes_no_more_rows_than_its_targets_can_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_MOST", 3)
    tokens = [np.arange(5, 7 + length, dtype=np.int32) for length in range(7)]
    rows = rows_in_memory((row, row > 5) for row in tokens)
    into = find_continuations(rows)
    assert into.tolist() == [1, 2, NO_ROW, 4, 5, NO_ROW, NO_ROW]
    assert joined(rows, into).columns["targets"].max() == 3


def test_chats_cut_into_rows_that_train_their_last_answers(write: Write, tokenizer: Any) -> None:
    cut = [
        {"prompt": messages(*TURNS[:stop]), "completion": messages("", TURNS[stop])[1:]} for stop in (1, 3)
    ]
    source = str(write("train.jsonl", [cut[1], cut[0]]))
    whole, one = (
        load_dataset(source, tokenizer, DataOptions(join_turns=join, valid_fraction=0, test_fraction=0))
        for join in (False, True)
    )
    assert whole.train is not None and one.train is not None
    assert (len(whole.train), len(one.train)) == (2, 1)
    ((tokens, targets),) = one.train
    assert targets.dtype == bool and targets.sum() == whole.train.target_counts.sum()
    assert [
        tokenizer.decode(part.tolist()) for part in np.split(tokens, np.flatnonzero(np.diff(targets)) + 1)
    ][1::2] == [f"{TURNS[1]}<|im_end|>", f"{TURNS[3]}<|im_end|>"]
    assert one.fingerprint != whole.fingerprint
    assert [example.answer for example in one.train.examples() or []] == [TURNS[3]]


def test_an_answer_that_several_rows_train_counts_once_for_each(write: Write, tokenizer: Any) -> None:
    source = str(write("train.jsonl", [{"messages": messages(*TURNS[:stop])} for stop in (2, 4)]).parent)
    whole = load_dataset(source, tokenizer).train
    one = load_dataset(source, tokenizer, DataOptions(join_turns=True)).train
    assert whole is not None and one is not None
    assert one[0].targets.max() == 2 and contexts(one) == contexts(whole)
    assert one.target_counts.sum() == whole.target_counts.sum()


def test_rows_that_are_cut_join_within_what_is_left(write: Write, tokenizer: Any) -> None:
    rows = [{"messages": messages(*TURNS[:2])}, {"messages": messages(*TURNS[:2], "hello " * 50, "yes")}]
    source = str(write("train.jsonl", rows).parent)
    length = len(load_dataset(source, tokenizer).splits["train"][0].tokens)
    for limit, expected in ((length + 3, 1), (length, 2), (length - 3, 2)):
        dataset = load_dataset(source, tokenizer, DataOptions(join_turns=True, max_seq_length=limit))
        assert len(dataset.splits["train"]) == expected


@pytest.mark.parametrize("family", ["thinking"])
def test_a_template_that_rewrites_earlier_turns_leaves_nothing_to_join(
    write: Write, tokenizers: dict[str, Any], family: str
) -> None:
    source = str(write("train.jsonl", [{"messages": messages(*TURNS[:stop])} for stop in (2, 4)]).parent)
    dataset = load_dataset(source, tokenizers[family], DataOptions(join_turns=True))
    assert len(dataset.splits["train"]) == 2 and not dataset.counts["train"].beginnings


def test_it_is_offered_by_plan_and_check_and_said_once_done(
    write: Write, tokenizer: Any, tmp_path: Path
) -> None:
    rows = [{"messages": messages(*TURNS[:stop])} for stop in (2, 4)]
    source = str(write("train.jsonl", rows).parent)
    write("valid.jsonl", rows)
    for _ in range(2):  # the second time from the cache
        options = DataOptions(cache_dir=tmp_path / "cache")
        dataset = load_dataset(source, tokenizer, options)
        assert any(
            "1 training rows are a prefix" in note and "--join-turns" in note for note in dataset.notes
        )
        (finding,) = [f for f in check(dataset, options).findings if f.code == "beginnings"]
        assert "1 of 2 rows" in finding.evidence and "train.jsonl:1" in finding.evidence
        options = DataOptions(cache_dir=tmp_path / "cache", join_turns=True)
        dataset = load_dataset(source, tokenizer, options)
        assert any("joined into 1, with" in note for note in dataset.notes)
        assert not [f for f in check(dataset, options).findings if f.code == "beginnings"]
        assert len(dataset.splits["valid"]) == 2, "losses stay comparable"
    assert dataset.from_cache


def test_held_out_rows_that_are_related_to_training_rows_are_reported(write: Write, tokenizer: Any) -> None:
    ours, longest = messages(*TURNS[:4]), messages(*TURNS)
    write("train.jsonl", [{"messages": ours}, {"messages": messages("other", "row")}])
    write("test.jsonl", [{"messages": messages("unlike", "all")}])
    path = write(
        "valid.jsonl", [{"messages": longest}, {"messages": ours[:2]}, {"messages": messages("a", "b")}]
    )
    dataset = load_dataset(str(path.parent), tokenizer)
    assert {split: counts.related for split, counts in dataset.counts.items()} == {
        "train": 0,
        "valid": 2,
        "test": 0,
    }
    note = next(note for note in dataset.notes if "training row" in note)
    assert note.startswith("2 of 3 rows of valid begin with a training row or are the beginning of one")
    finding = next(found for found in check(dataset, DataOptions()).findings if found.code == "related_rows")
    assert (finding.where, finding.severity) == ("valid", "error")
    assert "valid.jsonl:1" in finding.evidence and "valid.jsonl:2" in finding.evidence
    assert finding.fix == "Keep the rows of a conversation in one of train.jsonl, valid.jsonl and test.jsonl"
    assert note.endswith(": k" + finding.fix[1:])


def test_the_advice_on_related_rows_suits_the_source(write: Write, tokenizer: Any) -> None:
    """All chats of one file begin with a long greeting, and one row has nothing else."""
    hello = "hello, who are you and what can you do?", "I am a model and I answer questions about numbers."
    rows = [{"messages": messages(*hello, f"what is {n}?", f"it is {n}")} for n in range(60)]
    path = write("rows.jsonl", [{"messages": messages(*hello)}, *rows])
    dataset = load_dataset(str(path), tokenizer)
    fixes = [found.fix for found in check(dataset, DataOptions()).findings if found.code == "related_rows"]
    assert fixes and all(fix.startswith("Split the file yourself, with the rows of a") for fix in fixes)
    assert any(": split the file yourself" in note for note in dataset.notes)
    assert related_fix({"a/b [train]", "a/b [test]"}).startswith("Choose other splits, or save")


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_members_of_a_longer_list(few: list[int], many: list[int]) -> None:
    ours, theirs = np.array(few, np.uint64), np.array(many, np.uint64)
    assert joining._are_in(ours, theirs).tolist() == [value in many for value in few]
