"""A file is split without separating the rows of a conversation, and otherwise as before."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from mlxsched.data import DataOptions
from mlxsched.data.conversations import Splitter
from mlxsched.data.sources.files import SplitFileSource

Row = dict[str, Any]
Write = Callable[..., Path]


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(contents)]


def cut(name: str, answers: int) -> list[Row]:
    """A conversation as one row per answer."""
    contents = [f"{name} {number}" for number in range(2 * answers)]
    return [{"messages": turns(*contents[: 2 * number])} for number in range(1, answers + 1)]


def splits_of(path: Path, rows: Iterable[Row], options: DataOptions | None = None) -> dict[str, list[Row]]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found: dict[str, list[Row]] = {"train": [], "valid": [], "test": []}
    for record in SplitFileSource(path, options or DataOptions()).records():
        found[record.split].append(dict(record.parsed()))
    return found


def first_turns(rows: Iterable[Row]) -> set[str]:
    return {row["messages"][0]["content"] for row in rows}


def by_hash(rows: list[Row], seed: int) -> dict[str, list[Row]]:
    """The split of all versions before conversations were kept together, written out."""

    def position(row: Row) -> bytes:
        return hashlib.blake2b(
            json.dumps(row, sort_keys=True).encode(), digest_size=8, key=str(seed).encode()
        ).digest()

    order = sorted(rows, key=position)
    tenth = round(len(rows) / 10)
    parts = {"test": order[:tenth], "valid": order[tenth : 2 * tenth], "train": order[2 * tenth :]}
    return {split: [row for row in rows if row in part] for split, part in parts.items()}


@pytest.mark.parametrize("seed", [0, 3])
def test_rows_that_have_nothing_in_common_are_split_as_before(seed: int, tmp_path: Path) -> None:
    rows = [{"messages": turns("question", f"answer {n}", f"more {n}", "end")} for n in range(30)]
    rows += [{"prompt": "same", "completion": f"{n}"} for n in range(15)] + [
        {"text": f"text {n}"} for n in range(15)
    ]
    assert splits_of(tmp_path / "rows.jsonl", rows, DataOptions(seed=seed)) == by_hash(rows, seed)


def test_a_conversation_stays_in_one_split(tmp_path: Path) -> None:
    rows = [row for n in range(40) for row in cut(f"c{n}", 1 + n % 5)]
    found = splits_of(tmp_path / "rows.jsonl", rows)
    names = {split: first_turns(part) for split, part in found.items()}
    assert {split: len(part) for split, part in found.items()} == {"train": 96, "valid": 12, "test": 12}
    assert (
        not names["train"] & names["valid"] | names["train"] & names["test"] | names["valid"] & names["test"]
    )
    assert splits_of(tmp_path / "rows.jsonl", rows[::-1]) == {
        split: part[::-1] for split, part in found.items()
    }


def test_weights_other_formats_and_branches_belong_to_the_conversation(tmp_path: Path) -> None:
    groups: dict[str, list[Row]] = defaultdict(list)
    for n in range(20):
        first, answer = f"ask {n}", f"answer {n}"
        groups[first] = [
            {"messages": turns(first, answer)},
            {"messages": [turns(first)[0], {**turns("", answer)[1], "weight": 0}, *turns("go on", "yes")]},
            {"messages": turns(first, answer, "another branch", "no"), "id": n},
            {"conversations": [{"from": "human", "value": first}, {"from": "gpt", "value": answer}]},
            {"prompt": turns(first, answer, "third"), "completion": [{"role": "assistant", "content": "ok"}]},
            {"prompt": turns(first, answer, "fourth"), "completion": "ok"},
            {"prompt": first, "completion": turns("", answer, "fifth", "ok")[1:]},
            {"messages": [{**turn, "name": "x", "time": n} for turn in turns(first, answer, "sixth", "ok")]},
        ]
    found = splits_of(tmp_path / "rows.jsonl", [row for group in groups.values() for row in group])
    for first, group in groups.items():
        chats = [row for row in group if "conversations" not in row]
        assert sum(all(row in part for row in chats) for part in found.values()) == 1, first


def test_examples_that_come_before_every_question_join_nothing(tmp_path: Path) -> None:
    rows = [{"messages": turns("example", "answer", f"question {n}", f"answer {n}")} for n in range(60)]
    assert splits_of(tmp_path / "rows.jsonl", rows) == by_hash(rows, 0)


GREETING = ("hi", "hello")


@pytest.mark.parametrize("exchanges", [1, 2])
def test_a_row_that_is_only_the_greeting_changes_nothing(tmp_path: Path, exchanges: int) -> None:
    """300 of 1,000 chats begin with a greeting; they are split like the others, whether or not a row ends there."""
    hello = GREETING * exchanges
    rows = [{"messages": turns(*hello, f"question {n}", f"answer {n}")} for n in range(300)]
    rows += [{"messages": turns(f"question {n}", f"answer {n}")} for n in range(300, 999)]
    path, end = tmp_path / "rows.jsonl", {"messages": turns(*hello)}
    assert splits_of(path, [*rows, rows[-1]]) == by_hash([*rows, rows[-1]], 0)
    assert splits_of(path, [*rows, end]) == by_hash([*rows, end], 0)
    source = SplitFileSource(path, DataOptions())
    assert len(list(source.records())) == 1000
    assert source.notes[0].endswith("; the common beginning of 301 rows does not count as a conversation")


@pytest.mark.parametrize("ends", [False, True])
def test_branches_that_fit_into_a_split_stay_together(tmp_path: Path, ends: bool) -> None:
    rows: list[Row] = [{"text": f"text {n}"} for n in range(300 - 30)]
    branches = [{"messages": turns("ask", "answer", f"question {n}", f"answer {n}")} for n in range(29)]
    branches.append({"messages": turns("ask", "answer", *(["more", "end"] if not ends else []))})
    found = splits_of(tmp_path / "rows.jsonl", [*rows, *branches])
    assert sum(all(row in part for row in branches) for part in found.values()) == 1


def test_few_long_conversations(tmp_path: Path) -> None:
    """None fits into a tenth of the rows: the shortest is held out as long as half of the rows are left to train on."""
    four = splits_of(tmp_path / "rows.jsonl", [row for n in range(4) for row in cut(f"c{n}", 5)])
    assert {split: len(part) for split, part in four.items()} == {"train": 10, "valid": 5, "test": 5}
    one = splits_of(tmp_path / "rows.jsonl", cut("only", 20))
    assert {split: len(part) for split, part in one.items()} == {"train": 20, "valid": 0, "test": 0}


def test_the_note_says_how_many_rows_stayed_together(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [*cut("a", 2), *cut("b", 3), *({"text": f"{n}"} for n in range(15))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SplitFileSource(path, DataOptions())
    assert len(list(source.records())) == 20
    assert source.notes[0].endswith("; 5 rows stayed with others of their conversation")


@pytest.mark.parametrize("bad", [None, 3, [], [1], ["x"], [{"role": ["a"]}], [{"content": "no role"}], [{}]])
def test_rows_that_are_no_chats_are_left_to_the_reader(bad: Any) -> None:
    splitter = Splitter(DataOptions())
    for number in range(10):
        splitter.add(number, {"messages": bad})
    assert len(splitter.held_out().valid) == 1
