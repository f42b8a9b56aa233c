"""Several processes give the same rows as one, and no helper process outlives the one that started it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from multiprocessing import Pipe
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
from data_helpers import chat

from mlxsched.data import DataOptions, load_dataset
from mlxsched.data import helpers as helpers_module
from mlxsched.data import tokenizing as tokenizing_module
from mlxsched.data.encode import Encoder
from mlxsched.data.helper import copy_of
from mlxsched.data.helpers import Helpers
from mlxsched.data.reading import _Pass
from mlxsched.data.record import Record
from mlxsched.data.tokenizing import Tokenized
from mlxsched.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The helper processes that have started: at most one at a time, which starts at once and is waited for."""
    made: list[Any] = []

    class Waited(helpers_module._Helper):
        def __init__(self, first: bytes) -> None:
            super().__init__(first)
            made.append(self)

        def has_replied(self) -> bool:
            return True

    monkeypatch.setattr(helpers_module, "_Helper", Waited)
    monkeypatch.setattr(helpers_module, "cores", lambda: 2)
    monkeypatch.setattr(helpers_module, "AFTER_SECONDS", 0.0)
    monkeypatch.setattr(helpers_module, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(tokenizing_module, "BATCH_ROWS", 4)
    monkeypatch.setattr("mlxsched.data.reading.BATCH_ROWS", 4)
    return made


def test_rows_counts_and_problems_are_the_same_as_with_one_process(
    write: Write, tokenizer: Any, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Any] = [chat(f"row {i}", "four " * (i % 30 + 1)) for i in range(42)]
    rows[30] = {"text": "another format"}
    rows[17], rows[39] = "{", {"messages": []}
    path, options = str(write("train.jsonl", rows).parent), DataOptions(max_seq_length=60, skip_bad_rows=True)
    several = load_dataset(path, tokenizer, options)
    assert len(started) == 1 and started[0].is_ready
    with pytest.raises(DataError) as error_of_several:
        load_dataset(path, tokenizer)
    monkeypatch.setattr(helpers_module, "cores", lambda: 1)
    one = load_dataset(path, tokenizer, options)
    with pytest.raises(DataError) as error_of_one:
        load_dataset(path, tokenizer)
    assert len(started) == 2
    assert str(error_of_several.value) == str(error_of_one.value)
    assert several.fingerprint == one.fingerprint
    assert several.splits["train"].origin_digest() == one.splits["train"].origin_digest()
    assert several.counts == one.counts
    assert asdict(several.problems) == asdict(one.problems) and several.notes == one.notes
    assert all(each._process.returncode is not None for each in started)


def records(count: int) -> Iterator[list[Record]]:
    features = DataOptions().features
    for number in range(1, count + 1):
        yield [Record("train", "file", number, chat(f"row {number}", "four"), features)]


def test_a_helper_that_dies_is_reported_and_its_rows_are_tokenized_again(
    tokenizer: Any, started: list[Any]
) -> None:
    with Helpers(Encoder(tokenizer, True), DataOptions(), lambda: None) as helpers:
        lines = []
        for chunk, found in helpers.tokenized(records(9), {}):
            lines += [line for part in found.rows["train"] for line in part.lines]
            assert chunk[0].line == lines[-1]
            if started and len(lines) == 4:
                started[0]._process.kill()
                started[0]._process.wait()
        assert lines == list(range(1, 10))
        assert helpers.notes == [
            "a helper process for tokenizing ended early (signal 9); the main process did its work"
        ]


def test_no_helper_outlives_an_interrupt(tokenizer: Any, started: list[Any]) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        Helpers(Encoder(tokenizer, True), DataOptions(), lambda: None) as helpers,
    ):
        for _ in helpers.tokenized(records(9), {}):
            if started:
                raise KeyboardInterrupt
    assert started[0]._process.returncode == -9


def test_a_helper_ends_with_the_process_that_started_it(tokenizer: Any) -> None:
    one = helpers_module._Helper(bytes(ForkingPickler.dumps((copy_of(tokenizer), DataOptions()))))
    assert one.receive() == Encoder(tokenizer, True).identity()
    one._connection.close()  # as when that process is killed
    assert one._process.wait(30) == 0
    one.end()


def test_a_helper_that_ends_while_it_starts_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[object] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    one = helpers_module._Helper(bytes(2**24))  # more than the connection holds
    one.end()
    assert not one._writing.is_alive() and not errors


def test_helpers_that_cannot_start_are_reported(
    tokenizer: Any, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helpers_module, "cores", lambda: 3)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Helpers(Encoder(tokenizer, True), DataOptions(), lambda: None) as helpers:
        assert [chunk[0].line for chunk, _ in helpers.tokenized(records(9), {})] == list(range(1, 10))
        assert len(started) == len(helpers.notes) == 2


def test_few_rows_start_no_helper(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers_module, "cores", lambda: 8)
    monkeypatch.setattr(helpers_module, "AFTER_SECONDS", 0.0)
    monkeypatch.setattr(helpers_module, "_Helper", lambda _: pytest.fail("started"))
    with Helpers(Encoder(tokenizer, True), DataOptions(), lambda: 0.99) as helpers:
        assert len(list(helpers.tokenized(records(9), {}))) == 9


@pytest.mark.parametrize("name", ["Popen", "dumps"])
def test_rows_are_tokenized_where_no_helper_can_start(
    tokenizer: Any, started: list[Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("refused")

    monkeypatch.setattr(subprocess if name == "Popen" else ForkingPickler, name, refuse)
    with Helpers(Encoder(tokenizer, True), DataOptions(), lambda: None) as helpers:
        assert len(list(helpers.tokenized(records(9), {}))) == 9
    assert not started


def test_a_format_is_first_seen_in_the_first_chunk() -> None:
    done = _Pass(lambda split: pytest.fail(split))
    for line in (1, 5):  # as if both were tokenized at the same time
        done.add(Tokenized(formats={"train": ("chat", f"file:{line}")}))
    assert done.formats == {"train": ("chat", "file:1")}


def test_the_copy_of_a_tokenizer_gives_the_same_results(tokenizers: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello <|im_end|>"}]
    for name, tokenizer in tokenizers.items():
        copied = ForkingPickler.loads(ForkingPickler.dumps(copy_of(tokenizer)))
        assert Encoder(copied, True).identity() == Encoder(tokenizer, True).identity()
        if name != "plain":
            arguments = {"tokenize": False, "add_generation_prompt": True}
            expected = tokenizer.apply_chat_template(messages, **arguments)
            assert copied.apply_chat_template(messages, **arguments) == expected


def test_a_tokenizer_with_its_own_code_is_not_copied(tokenizers: dict[str, Any]) -> None:
    class Other:
        is_fast = True

    assert copy_of(Other()) is None


def test_a_helper_does_not_import_mlx(tokenizer: Any) -> None:
    ours, theirs = Pipe()
    code = (
        "import sys; from mlxsched.data.helper import main; main()\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('mlx', 'mlx_lm')])"
    )
    command = [sys.executable, "-c", code, str(theirs.fileno())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        for request in ((copy_of(tokenizer), DataOptions()), (next(records(1)), {})):
            ours.send(request)
            assert ours.recv() is not None
        ours.close()
        assert process.communicate(timeout=60)[0].strip() == "[]"
