"""Whole data sets: formats, limits, splits, the cache, and every mistake a user can make in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlxsched.data import DataOptions, Features, load_dataset
from mlxsched.data.dataset import Dataset
from mlxsched.errors import DataError, MlxschedError

Write = Callable[..., Path]


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def texts(tokenizer: Any, dataset: Dataset, split: str = "train") -> list[tuple[str, str]]:
    """Of each row: all of it, and its targets, as text."""
    rows = dataset.splits[split]
    return [
        (tokenizer.decode(row.tokens.tolist()), tokenizer.decode(row.tokens[row.targets].tolist()))
        for row in rows
    ]


# formats


def test_text_rows_score_all_but_the_first_token(write: Write, tokenizer: Any) -> None:
    write("train.jsonl", [{"text": "hello there"}, {"text": "the sum<|im_end|>"}])
    dataset = load_dataset(str(write("valid.jsonl", [{"text": "two"}]).parent), tokenizer)
    assert [whole for whole, _ in texts(tokenizer, dataset)] == ["hello there<|im_end|>", "the sum<|im_end|>"]
    for row in dataset.splits["train"]:
        assert row.targets.tolist() == [False] + [True] * (len(row.tokens) - 1)
    assert dataset.train is not None
    assert dataset.train.examples() is None


def test_prompt_and_completion_through_the_template(write: Write, tokenizer: Any) -> None:
    write("train.jsonl", [{"prompt": "two?", "completion": "four"}])
    dataset = load_dataset(str(write("valid.jsonl", []).parent), tokenizer)
    assert texts(tokenizer, dataset) == [
        ("<|im_start|>user\ntwo?<|im_end|>\n<|im_start|>assistant\nfour<|im_end|>\n", "four<|im_end|>")
    ]
    assert dataset.train is not None
    ((prompt, answer),) = dataset.train.examples() or []
    assert tokenizer.decode(prompt) == "<|im_start|>user\ntwo?<|im_end|>\n<|im_start|>assistant\n"
    assert answer == "four"


def test_prompt_and_completion_without_a_template(write: Write, tokenizers: dict[str, Any]) -> None:
    write("train.jsonl", [{"prompt": "Q: two?\nA:", "completion": " four"}])
    dataset = load_dataset(str(write("valid.jsonl", []).parent), tokenizers["plain"])
    assert texts(tokenizers["plain"], dataset) == [("Q: two?\nA: four<|im_end|>", " four<|im_end|>")]


def test_other_names_of_the_features(write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", [{"question": "two?", "formula": "four"}]).parent
    features = Features(prompt="question", completion="formula")
    dataset = load_dataset(str(path), tokenizer, DataOptions(features=features))
    assert texts(tokenizer, dataset)[0][1] == "four<|im_end|>"


def test_tools_reach_the_template(write: Write, tokenizers: dict[str, Any]) -> None:
    import copy

    from mlx_lm.tokenizer_utils import TokenizerWrapper

    fast = copy.deepcopy(tokenizers["chatml"]._tokenizer)
    fast.chat_template = "{% if tools %}{{ tools[0].name }}{% endif %}" + fast.chat_template
    record = {**chat("two?", "four"), "tools": [{"name": "calculator"}]}
    dataset = load_dataset(str(write("train.jsonl", [record]).parent), TokenizerWrapper(fast))
    assert texts(fast, dataset)[0][0].startswith("calculator<|im_start|>user")


def test_parts_of_text_are_joined(write: Write, tokenizer: Any) -> None:
    parts = [{"type": "text", "text": "hello "}, {"type": "text", "text": "there"}]
    record = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "four"}]}
    dataset = load_dataset(str(write("train.jsonl", [record]).parent), tokenizer)
    assert "user\nhello there<|im_end|>" in texts(tokenizer, dataset)[0][0]


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


# limits


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


def test_no_row_with_targets_is_an_error(write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", [chat("two? " * 60, "four")] * 3).parent
    with pytest.raises(DataError, match="no rows for train: 3 rows .* beyond --max-seq-length 40; raise it"):
        load_dataset(str(path), tokenizer, DataOptions(max_seq_length=40))


def test_an_answer_whose_prompt_is_cut_cannot_be_asked(write: Write, tokenizer: Any) -> None:
    long = {"messages": [*chat("a", "b")["messages"], *chat("two? " * 60, "four")["messages"]]}
    path = write("train.jsonl", [long, chat("two?", "four")]).parent
    dataset = load_dataset(str(path), tokenizer, DataOptions(max_seq_length=80))
    assert dataset.train is not None
    assert len(dataset.train) == 2
    assert [example.answer for example in dataset.train.examples() or []] == ["four"]


# files


def test_marks_line_ends_and_blank_lines(tmp_path: Path, write: Write, tokenizer: Any) -> None:
    plain = load_dataset(str(write("train.jsonl", [chat("a", "b"), chat("c", "d")]).parent), tokenizer)
    lines = b"\xef\xbb\xbf" + b"\r\n".join(
        json.dumps(chat(*pair)).encode() for pair in (("a", "b"), ("c", "d"))
    )
    (tmp_path / "train.jsonl").write_bytes(lines + b"\r\n\r\n \n")
    assert load_dataset(str(tmp_path), tokenizer).fingerprint == plain.fingerprint


def test_the_fingerprint_is_of_the_content(tmp_path: Path, write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", [chat("a", "b"), chat("c", "d")])
    first = load_dataset(str(tmp_path), tokenizer)
    (tmp_path / "sub").mkdir()
    path.rename(tmp_path / "sub" / "train.jsonl")
    assert load_dataset(str(tmp_path / "sub"), tokenizer).fingerprint == first.fingerprint
    write("sub/train.jsonl", [chat("a", "b"), chat("c", "e")])
    assert load_dataset(str(tmp_path / "sub"), tokenizer).fingerprint != first.fingerprint
    unmasked = load_dataset(str(tmp_path / "sub"), tokenizer, DataOptions(mask_prompt=False))
    assert unmasked.fingerprint != load_dataset(str(tmp_path / "sub"), tokenizer).fingerprint


def test_one_file_is_split_by_content(write: Write, tokenizer: Any) -> None:
    rows = [chat(f"row {i}", "four") for i in range(40)]
    path = write("all.jsonl", rows + rows)

    def split(options: DataOptions) -> dict[str, set[str]]:
        dataset = load_dataset(str(path), tokenizer, options)
        return {name: {whole for whole, _ in texts(tokenizer, dataset, name)} for name in dataset.splits}

    first = split(DataOptions())
    assert {name: len(found) for name, found in first.items()} == {"train": 32, "valid": 4, "test": 4}
    assert (
        not first["train"] & first["valid"] | first["train"] & first["test"] | first["valid"] & first["test"]
    )
    write("all.jsonl", [*rows[::-1], *rows])
    assert split(DataOptions()) == first
    assert split(DataOptions(seed=1)) != first


def test_one_row_is_trained_on_and_not_held_out(write: Write, tokenizer: Any) -> None:
    dataset = load_dataset(str(write("one.jsonl", [chat("a", "b")])), tokenizer)
    assert {split: len(rows) for split, rows in dataset.splits.items()} == {"train": 1}
    assert any("no validation rows" in note for note in dataset.notes)


def test_csv(tmp_path: Path, tokenizer: Any) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes('\ufeffprompt,completion\r\n"two,\ntwo?",four\r\n\r\nthree?,six\r\n'.encode())
    dataset = load_dataset(str(tmp_path), tokenizer)
    assert [example.answer for example in (dataset.train and dataset.train.examples()) or []] == [
        "four",
        "six",
    ]
    assert "two,\ntwo?" in texts(tokenizer, dataset)[0][0]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"prompt,completion\na,b\nc\n", ":3: 1 cells under a header of 2"),
        (b"prompt,prompt\na,b\n", ":2: two columns of the header have the same name"),
        (b'prompt,completion\n"a"x,b\n', ":2: not CSV"),
        (b"prompt,completion\na,\xff\n", "bytes that are not UTF-8"),
        (b"messages\n{\n", ':2: the cell "messages" must hold JSON'),
        (b"a,b\nc,d\n", ':2: needs the key "messages"'),
        (b"prompt,completion\n", "no rows for train"),
    ],
)
def test_csv_mistakes(content: bytes, what: str, tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_dataset(str(tmp_path), tokenizer)
    assert what in str(caught.value)


def test_the_bundled_data(tokenizer: Any) -> None:
    dataset = load_dataset("excel", tokenizer)
    assert dataset.train is not None
    assert dataset.valid is not None
    assert len(dataset.train) >= 1000
    assert dataset.counts["train"].bad == 0
    assert all(example.answer.startswith("=") for example in dataset.valid.examples() or [])


# mistakes


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


def test_all_bad_rows_are_reported_up_to_twenty(write: Write, tokenizer: Any) -> None:
    rows: list[Any] = [chat("a", "b")]
    rows += ['{"text": "\x1b[31m' + "x" * 500] * 25
    path = write("train.jsonl", rows).parent
    with pytest.raises(DataError) as caught:
        load_dataset(str(path), tokenizer)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("25 rows of ")
    assert [line.split(":")[1] for line in lines[1:21]] == [str(number) for number in range(2, 22)]
    assert lines[21] == "  ... and 5 more"
    assert "--skip-bad-rows" in lines[22]
    assert "\x1b" not in str(caught.value)
    assert "\\x1b[31m" in lines[1]
    assert max(map(len, lines)) < 300


def test_bad_rows_are_skipped_and_counted_when_asked(write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", [chat("a", "b"), "{", chat("c", "d"), {"text": "mixed"}]).parent
    dataset = load_dataset(str(path), tokenizer, DataOptions(skip_bad_rows=True))
    clean = load_dataset(str(write("train.jsonl", [chat("a", "b"), chat("c", "d")]).parent), tokenizer)
    assert dataset.fingerprint == clean.fingerprint
    assert (dataset.counts["train"].bad, dataset.counts["train"].used) == (2, 2)
    assert "2 bad rows skipped" in dataset.notes[0]
    assert "the format is text, but the rows before are chat" in dataset.problems.shown[1]


def test_only_bad_rows_are_an_error_even_when_skipped(write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", ["{", "["]).parent
    with pytest.raises(DataError, match=r"train\.jsonl:1: not JSON"):
        load_dataset(str(path), tokenizer, DataOptions(skip_bad_rows=True))


def test_what_is_not_there(tmp_path: Path, write: Write, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="The directory is empty"):
        load_dataset(str(tmp_path), tokenizer)
    write("rows.jsonl", [chat("a", "b")])
    with pytest.raises(DataError, match=r"has no train\.jsonl.*holds rows\.jsonl.*--data .*rows\.jsonl"):
        load_dataset(str(tmp_path), tokenizer)
    with pytest.raises(DataError, match=r"no file or directory .*Did you mean .*rows\.jsonl"):
        load_dataset(str(tmp_path / "row.jsonl"), tokenizer)
    (tmp_path / "rows.txt").touch()
    with pytest.raises(DataError, match=r"neither \.jsonl nor \.csv"):
        load_dataset(str(tmp_path / "rows.txt"), tokenizer)
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(DataError, match="no rows for train: the file is empty"):
        load_dataset(str(tmp_path), tokenizer)


def test_only_what_is_needed_is_required(write: Write, tokenizer: Any) -> None:
    path = write("test.jsonl", [chat("a", "b")]).parent
    dataset = load_dataset(str(path), tokenizer, DataOptions(need=("test",)))
    assert dataset.train is None
    assert dataset.test is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", [chat("a", "b")])
    path.chmod(0)
    with pytest.raises(DataError, match="can't be read: Permission denied"):
        load_dataset(str(path.parent), tokenizer)


# the cache


@pytest.fixture
def cached(write: Write, tmp_path: Path) -> tuple[str, DataOptions]:
    rows = [chat(f"row {i}", "four " * i) for i in range(1, 30)]
    write("data.jsonl", [*rows, chat("é" * 3000, "gone")])
    return str(tmp_path / "data.jsonl"), DataOptions(cache_dir=tmp_path / "cache", max_seq_length=60)


def test_the_cache_gives_the_same_rows(cached: tuple[str, DataOptions], tokenizer: Any) -> None:
    first, second = (load_dataset(cached[0], tokenizer, cached[1]) for _ in range(2))
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.fingerprint == second.fingerprint
    assert first.notes == second.notes
    assert first.counts == second.counts
    for split, rows in first.splits.items():
        other = second.splits[split]
        assert rows.examples() == other.examples()
        for one, two in zip(rows, other, strict=True):
            np.testing.assert_array_equal(one.tokens, two.tokens)
            np.testing.assert_array_equal(one.targets, two.targets)
    memory = load_dataset(cached[0], tokenizer, DataOptions(max_seq_length=60))
    assert memory.fingerprint == first.fingerprint


def test_what_decides_the_rows_decides_the_entry(
    cached: tuple[str, DataOptions], tokenizers: dict[str, Any]
) -> None:
    source, options = cached
    load_dataset(source, tokenizers["chatml"], options)
    assert not load_dataset(source, tokenizers["llama3"], options).from_cache
    assert not load_dataset(source, tokenizers["chatml"], replace(options, max_seq_length=50)).from_cache
    assert not load_dataset(source, tokenizers["chatml"], replace(options, mask_prompt=False)).from_cache
    path = Path(source)
    path.write_text(path.read_text() + json.dumps(chat("new", "row")) + "\n")
    assert not load_dataset(source, tokenizers["chatml"], options).from_cache


def test_the_seed_decides_the_split_of_a_file_only(
    cached: tuple[str, DataOptions], write: Write, tokenizer: Any
) -> None:
    source, options = cached
    load_dataset(source, tokenizer, options)
    assert not load_dataset(source, tokenizer, replace(options, seed=1)).from_cache
    directory = str(write("sub/train.jsonl", [chat("a", "b")]).parent)
    load_dataset(directory, tokenizer, options)
    assert load_dataset(directory, tokenizer, replace(options, seed=1)).from_cache


@pytest.mark.parametrize("damage", ["flip", "cut", "header", "gone", "format", "counts"])
def test_a_damaged_entry_is_rebuilt(damage: str, cached: tuple[str, DataOptions], tokenizer: Any) -> None:
    source, options = cached
    assert options.cache_dir is not None
    first = load_dataset(source, tokenizer, options)
    (entry,) = options.cache_dir.iterdir()
    tokens, header = entry / "train.tokens", entry / "header.json"
    data = tokens.read_bytes()
    if damage == "flip":
        tokens.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "cut":
        tokens.write_bytes(data[:-3])
    elif damage == "header":
        header.write_text('{"format"')
    elif damage == "counts":
        header.write_text(header.read_text().replace('"dropped"', '"lost"'))
    elif damage == "format":
        header.write_text(header.read_text().replace('"format": 3', '"format": 0'))
    else:
        tokens.unlink()
    again = load_dataset(source, tokenizer, options)
    assert not again.from_cache
    assert again.fingerprint == first.fingerprint
    assert load_dataset(source, tokenizer, options).from_cache


def test_a_cache_that_cannot_be_written_is_not_needed(
    cached: tuple[str, DataOptions], tmp_path: Path, tokenizer: Any
) -> None:
    (tmp_path / "file").touch()
    dataset = load_dataset(cached[0], tokenizer, replace(cached[1], cache_dir=tmp_path / "file"))
    assert dataset.train is not None
    assert "not kept for the next run" in dataset.notes[-1]


def test_a_refused_data_set_leaves_nothing_in_the_cache(write: Write, tmp_path: Path, tokenizer: Any) -> None:
    options = DataOptions(cache_dir=tmp_path / "cache")
    with pytest.raises(DataError):
        load_dataset(str(write("rows.jsonl", ["{"])), tokenizer, options)
    assert list((tmp_path / "cache").iterdir()) == []


# anything at all


_keys = st.sampled_from(
    [
        "text",
        "messages",
        "prompt",
        "completion",
        "role",
        "content",
        "tools",
        "tool_calls",
        "user",
        "assistant",
        "",
    ]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=8,
)
_message = st.fixed_dictionaries(
    {}, optional={"role": st.sampled_from(["user", "assistant", "system", "odd"]) | _json, "content": _json}
)
_record = st.dictionaries(_keys, _json, max_size=4) | st.fixed_dictionaries(
    {"messages": st.lists(_message, max_size=4)}
)
_line = st.one_of(
    _record.map(lambda record: json.dumps(record).encode()),
    _json.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.binary(max_size=40),
    st.sampled_from(
        [json.dumps(chat("two?", "four")).encode(), b'{"text": "hello"}', b"", b"\xef\xbb\xbf", b"\0"]
    ),
)
_file = st.lists(_line, max_size=6).flatmap(
    lambda lines: st.sampled_from([b"\n", b"\r\n"]).map(lambda e: e.join(lines))
)


@settings(
    max_examples=int(os.environ.get("MLXSCHED_FUZZ", "150")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=_file, skip=st.booleans(), mask=st.booleans(), suffix=st.sampled_from([".jsonl", ".csv"]))
def test_any_file_is_rows_or_one_data_error(
    data: bytes, skip: bool, mask: bool, suffix: str, tmp_path: Path, tokenizer: Any
) -> None:
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(data)
    options = DataOptions(skip_bad_rows=skip, mask_prompt=mask, max_seq_length=40)
    try:
        dataset = load_dataset(str(path), tokenizer, options)
    except MlxschedError as error:
        assert isinstance(error, DataError)
        assert all(line.isprintable() for line in str(error).splitlines())
        return
    assert dataset.train is not None
    for rows in dataset.splits.values():
        assert (rows.target_counts > 0).all()
        assert rows.lengths.max() <= 40
        assert not any(row.targets[0] for row in rows)
    assert skip or dataset.problems.count == 0


# memory


def test_memory_does_not_grow_with_the_rows(write: Write, tmp_path: Path, tokenizer: Any) -> None:
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

    peak(600)  # what is imported and compiled once
    few, many = peak(1500), peak(6000)
    # 4500 rows more are 1.5 MB of tokens; only their ends (16 bytes a row) may come into memory
    assert many - few < 400_000


def test_progress_receives_the_number_of_rows(write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", [{"text": f"row {i}"} for i in range(1100)])
    seen: list[int] = []
    load_dataset(str(path.parent), tokenizer, progress=seen.append)
    assert seen == [512, 1024]


# positions


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


def test_no_row_within_the_positions_is_an_error(write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", [chat("two? " * 60, "four")] * 3).parent
    with pytest.raises(DataError, match=r"3 rows with all targets beyond the 9 positions of the model"):
        load_dataset(str(path), tokenizer, DataOptions(max_positions=9))


# places


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


def test_the_cache_names_the_file_that_was_given(write: Write, tmp_path: Path, tokenizer: Any) -> None:
    options = DataOptions(cache_dir=tmp_path / "cache")
    path = write("one.jsonl", [chat("a", "b")])
    load_dataset(str(path), tokenizer, options)
    moved = path.rename(tmp_path / "other.jsonl")
    dataset = load_dataset(str(moved), tokenizer, options)
    assert dataset.splits["train"].place(0) == f"{moved}:1"
