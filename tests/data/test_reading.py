"""One pass over a source: limits, counts, problems, places, memory and progress."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_helpers import chat, texts

from mlxsched.data import DataOptions, load_dataset
from mlxsched.errors import DataError

Write = Callable[..., Path]


def test_long_rows_are_cut_and_rows_without_targets_dropped(write: Write, tokenizer: Any) -> None:
    rows = [chat("two?", "four"), chat("two?", "four " * 60), chat("two? " * 60, "four")]
    path = write("train.jsonl", rows).parent
    dataset = load_dataset(str(path), tokenizer, DataOptions(max_seq_length=80))
    assert dataset.train is not None
    assert len(dataset.train) == 2
    assert dataset.train.lengths.max() == 80
    assert (dataset.train.target_counts > 0).all()
    counts = dataset.counts["train"]
    assert (counts.read, counts.dropped, counts.truncated, counts.used) == (3, 1, 1, 2)
    notes = "\n".join(dataset.notes)
    assert "1 row of train dropped, with all targets beyond --max-seq-length 80" in notes
    assert "1 row of train cut at 80 tokens" in notes


def test_an_answer_whose_prompt_is_cut_cannot_be_asked(write: Write, tokenizer: Any) -> None:
    long = {"messages": [*chat("a", "b")["messages"], *chat("two? " * 60, "four")["messages"]]}
    path = write("train.jsonl", [long, chat("two?", "four")]).parent
    dataset = load_dataset(str(path), tokenizer, DataOptions(max_seq_length=80))
    assert dataset.train is not None
    assert len(dataset.train) == 2
    assert [example.answer for example in dataset.train.examples() or []] == ["four"]


def test_rows_fit_the_positions_of_the_model(write: Write, tokenizer: Any) -> None:
    rows = [chat("two?", "four"), chat("two?", "four " * 60), chat("two? " * 60, "four")]
    path = write("train.jsonl", rows)
    dataset = load_dataset(str(path.parent), tokenizer, DataOptions(max_positions=79))
    assert dataset.train is not None
    assert dataset.train.lengths.max() == 80  # 79 are read, and the 80th is predicted
    notes = "\n".join(dataset.notes)
    assert "1 row of train dropped, with all targets beyond the 79 positions of the model" in notes
    assert "1 row of train cut at 80 tokens (the 79 positions of the model)" in notes
    counts = dataset.counts["train"]
    assert counts.places == {"truncated": [f"{path}:2"], "dropped": [f"{path}:3"]}
    shorter = load_dataset(str(path.parent), tokenizer, DataOptions(max_positions=79, max_seq_length=60))
    assert shorter.splits["train"].lengths.max() == 60


def test_rows_that_do_not_say_when_to_stop_are_noted(
    write: Write, make_tokenizer: Callable[..., Any]
) -> None:
    fast = make_tokenizer("chatml")
    path = str(write("train.jsonl", [chat("a", "b")] * 3).parent)
    for mask in (True, False):
        assert load_dataset(path, fast, DataOptions(mask_prompt=mask)).counts["train"].open_ended == 0
    fast.eos_token = "[INST]"
    dataset = load_dataset(path, fast)
    assert dataset.counts["train"].open_ended == 3
    assert any("will not learn from them when to stop" in note for note in dataset.notes)


def test_rows_know_their_file_and_line(write: Write, tmp_path: Path, tokenizer: Any) -> None:
    lines = ["", *(chat(f"row {i}", "four") for i in range(20))]
    path = write("all.jsonl", lines)
    options = DataOptions(cache_dir=tmp_path / "cache")
    for from_cache in (False, True):
        dataset = load_dataset(str(path), tokenizer, options)
        assert dataset.from_cache is from_cache
        places = []
        for split, rows in dataset.splits.items():
            for index, (whole, _) in enumerate(texts(tokenizer, dataset, split)):
                origin = rows.origin(index)
                assert origin is not None
                assert (
                    json.loads(path.read_text().splitlines()[origin[1] - 1])["messages"][0]["content"]
                    in whole
                )
                places.append(rows.place(index))
        assert sorted(places) == sorted(f"{path}:{line}" for line in range(2, 22))


@pytest.mark.parametrize(
    ("record", "what"),
    [
        ({"messages": "hello"}, '"messages" must be a list of messages, not a string'),
        ({"messages": []}, '"messages" is empty'),
        ({"messages": ["hello"]}, "message 1 must be an object, not a string"),
        ({"messages": [{"content": "a"}]}, "message 1 has no role"),
        ({"messages": [{"role": 3, "content": "a"}]}, "message 1 has a number for its role"),
        (chat("a", "b") | {"tools": "x"}, '"tools" must be a list of objects, not a string'),
        ({"messages": [{"role": "user", "content": None}]}, "message 1: content must be a string, not null"),
        ({"messages": [{"role": "user", "text": "hi"}]}, 'message 1 has no "content"; it has "role", "text"'),
        ({"messages": [{"role": "user", "content": 3}]}, "message 1: content must be a string, not a number"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "message 1: only parts of type text",
        ),
        (chat("a", ""), "message 2: the assistant's content is empty"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no assistant message: nothing to train on"),
        ({"prompt": "a", "completion": 3}, '"completion" must be a string, not a number'),
        ({"prompt": "a", "completion": ""}, '"completion" is empty'),
        ({"text": ""}, '"text" is empty'),
        ({"text": True}, '"text" must be a string, not true'),
        ({"text": "\ud800"}, '"text" holds half of a surrogate pair'),
        (
            {"question": "a"},
            'needs the key "messages", "prompt" and "completion", or "text"; it has "question"',
        ),
        (
            {"promt": "a", "completion": "b"},
            'needs the key "messages", "prompt" and "completion", or "text"; it has "promt", "completion"; "promt" looks '
            'like "prompt"',
        ),
        (
            {"messages": [{"role": "user", "contents": "hi"}]},
            'message 1 has no "content"; it has "role", "contents"; "contents" looks like "content"',
        ),
        (
            {"messages": [{"roll": "user", "content": "hi"}]},
            'message 1 has no role; it needs "role": "user", "assistant" or "system"; "roll" looks like "role"',
        ),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistent", "content": "b"}]},
            "no assistant message: nothing to train on (--no-mask-prompt trains on all tokens); "
            '"assistent" looks like "assistant"',
        ),
        ({}, 'needs the key "messages", "prompt" and "completion", or "text"; it has none'),
    ],
)
def test_a_bad_record_is_named_with_its_line(record: Any, what: str, write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", [record]).parent
    with pytest.raises(DataError) as caught:
        load_dataset(str(path), tokenizer)
    assert f"{path}/train.jsonl:1: {what}" in str(caught.value)


def test_a_text_of_which_no_token_is_left(write: Write, make_tokenizer: Callable[..., Any]) -> None:
    from tokenizers import normalizers

    fast = make_tokenizer(None)
    fast.backend_tokenizer.normalizer = normalizers.Strip()
    path = write("train.jsonl", [{"text": "hello"}, {"text": "   "}]).parent
    with pytest.raises(DataError, match=r"train\.jsonl:2: no token to predict"):
        load_dataset(str(path), fast)


def test_bad_rows_are_reported_by_kind(write: Write, tokenizer: Any) -> None:
    rows: list[Any] = [chat("a", "b"), *[{"question": "a", "reply": "b"}] * 300]
    rows += [{"messages": []}, {"messages": 3}, {"messages": []}]
    with pytest.raises(DataError) as caught:
        load_dataset(str(write("train.jsonl", rows).parent), tokenizer)
    first, keys, empty, number, fix = str(caught.value).splitlines()
    assert first.startswith("303 rows of ") and "--skip-bad-rows" in fix
    assert "train.jsonl:2: needs the key" in keys and keys.endswith("(and 299 more rows)")
    assert "train.jsonl:303: " in number and "(and" not in number
    place = empty.rpartition("(and ")[2]
    assert "train.jsonl:302: " in empty and place.endswith("train.jsonl:304)")


def test_at_most_twenty_kinds_of_problems_are_reported(write: Write, tokenizer: Any) -> None:
    rows: list[Any] = [chat("a", "b")]
    rows += ['{"text": "' + "x" * number + "\x1b[31m" + "x" * 500 for number in range(25)]
    with pytest.raises(DataError) as caught:
        load_dataset(str(write("train.jsonl", [*rows, rows[1]]).parent), tokenizer)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("26 rows of ")
    assert lines[1].endswith("train.jsonl:27)")
    assert [line.split(":")[1] for line in lines[1:21]] == [str(number) for number in range(2, 22)]
    assert lines[21] == "  ... and 5 more"
    assert "\x1b" not in str(caught.value)
    assert "\\x1b[31m" in lines[1]
    assert max(map(len, lines)) < 300


def test_a_bad_row_does_not_decide_the_format_of_the_others(write: Write, tokenizer: Any) -> None:
    good = [chat("a", "b"), chat("c", "d")]
    path = write("train.jsonl", [{"text": ""}, *good]).parent
    dataset = load_dataset(str(path), tokenizer, DataOptions(skip_bad_rows=True))
    assert (dataset.counts["train"].bad, dataset.counts["train"].used) == (1, 2)


def test_bad_rows_are_skipped_and_counted_when_asked(write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", [chat("a", "b"), "{", chat("c", "d"), {"text": "mixed"}]).parent
    dataset = load_dataset(str(path), tokenizer, DataOptions(skip_bad_rows=True))
    clean = load_dataset(str(write("train.jsonl", [chat("a", "b"), chat("c", "d")]).parent), tokenizer)
    assert dataset.fingerprint == clean.fingerprint
    assert (dataset.counts["train"].bad, dataset.counts["train"].used) == (2, 2)
    assert "2 bad rows skipped" in dataset.notes[0]
    assert "the format is text, but earlier rows are chat" in dataset.problems.shown[1]


def test_memory_does_not_grow_with_the_rows(
    write: Write, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tracemalloc

    def peak(count: int) -> int:
        rows = [{"text": f"row {i} " + "the sum of the values " * 8} for i in range(count)]
        path = write("train.jsonl", rows)
        options = DataOptions(cache_dir=tmp_path / f"cache{count}")
        del rows
        tracemalloc.start()
        try:
            dataset = load_dataset(str(path.parent), tokenizer, options)
            assert dataset.train is not None
            assert len(dataset.train) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    monkeypatch.setattr("mlxsched.data.pieces.MOST_BYTES", 50_000)
    peak(600)  # what is imported and compiled once
    few, many = peak(1500), peak(6000)
    # 4500 rows more are 1.5 MB of tokens; only their ends (16 bytes a row) may come into memory
    assert many - few < 400_000


def test_progress_receives_the_number_of_rows_and_their_share(write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", [{"text": f"row {i}"} for i in range(1100)])
    seen: list[tuple[int, float | None]] = []
    load_dataset(str(path.parent), tokenizer, progress=lambda *now: seen.append(now))
    assert [rows for rows, _ in seen] == [512, 1024, 1100]
    assert all(share is not None and 0 < share <= 1 for _, share in seen)  # in steps of the file's buffer
