"""``mlxsched chat`` and the new flags of ``generate``, with a real run of the bundled model."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import mlx.core as mx
import pytest

from mlxsched.cli.main import main
from mlxsched.errors import UsageError
from mlxsched.model.conversation import Conversation, without_adapter
from mlxsched.model.load import load_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("chat") / "run"
    flags = ["--preset", "debug", "--iters", "2", "--learning-rate", "1e-2", "--val-batches", "1", "--plain"]
    assert main(["train", *flags, "--run-dir", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny")


def ask(capsys, monkeypatch, lines, *arguments):
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    assert main([*map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_a_conversation_is_asked_with_all_that_was_said(tiny):
    talk = Conversation(tiny.model, tiny.tokenizer, system="Be brief.", max_tokens=8)
    first = "".join(talk.ask("Add up column B"))
    second = "".join(talk.ask("And column C?"))
    assert [m["role"] for m in talk.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert talk.messages[2]["content"] == first
    again = Conversation(tiny.model, tiny.tokenizer, max_tokens=8)
    again.messages = [dict(message) for message in talk.messages[:3]]  # no cache to reuse
    assert "".join(again.ask("And column C?")) == second


def test_an_answer_that_is_stopped_is_kept_and_the_next_one_is_right(tiny):
    talk = Conversation(tiny.model, tiny.tokenizer, max_tokens=8)
    pieces = talk.ask("Add up column B")
    started = next(pieces)
    pieces.close()
    assert talk.messages[-1] == {"role": "assistant", "content": started}
    fresh = Conversation(tiny.model, tiny.tokenizer, max_tokens=8)
    fresh.messages = [dict(message) for message in talk.messages]
    assert "".join(talk.ask("More")) == "".join(fresh.ask("More"))


def test_an_answer_ends_where_learned_positions_do():
    """Beyond its table gpt2 reads whatever lies in memory there; llama computes its positions."""
    from mlx_lm.models import gpt2

    tokenizer = load_model("tiny").tokenizer
    settings = {"n_embd": 16, "n_head": 2, "n_layer": 1, "layer_norm_epsilon": 1e-5, "n_ctx": 40}
    args = gpt2.ModelArgs("gpt2", n_positions=40, vocab_size=len(tokenizer), **settings)
    talk = Conversation(gpt2.Model(args), tokenizer, max_tokens=500)
    "".join(talk.ask("Add up"))
    assert len(talk._seen) <= 40
    with pytest.raises(UsageError, match="has positions for"):
        "".join(talk.ask("word " * 40))


def test_without_its_adapter_a_model_is_the_base_and_comes_back(run, tiny):
    from mlxsched.runs.directory import RunDirectory
    from mlxsched.training.inference import load_run_model
    from mlxsched.training.recorded import config_of

    directory = RunDirectory.open(run)
    tuned = load_run_model(directory, config_of(directory)).model
    tokens = mx.array([[3, 7, 100]])
    before = tuned(tokens)
    with without_adapter(tuned):
        assert mx.array_equal(tuned(tokens), tiny.model(tokens))
    assert mx.array_equal(tuned(tokens), before)
    assert not mx.allclose(before, tiny.model(tokens), rtol=1e-2, atol=1e-2)


def test_lines_and_commands_of_a_pipe(run, capsys, monkeypatch):
    lines = ["Add up column B", "/system Be brief.", "", "Add up column B", "/quit", "never asked"]
    out = ask(capsys, monkeypatch, lines, "chat", run, "--compare", "--json", "--max-tokens", "6")
    turns = json.loads(out)
    assert [turn["prompt"] for turn in turns] == ["Add up column B"] * 2
    assert all(turn["answers"].keys() == {"base", "tuned"} for turn in turns)
    assert turns[0]["answers"]["base"] != turns[0]["answers"]["tuned"]
    text = ask(capsys, monkeypatch, lines[:1], "chat", run, "--compare", "--max-tokens", "6")
    assert text == "[base]\n{base}\n[tuned]\n{tuned}\n".format(**turns[0]["answers"])


def test_generate_answers_each_line_under_a_system_prompt(run, capsys, monkeypatch):
    common = ("generate", run, "--max-tokens", "6", "--json")
    both = json.loads(
        ask(capsys, monkeypatch, ["Add up column B", "", "Sum of A1 to A9"], *common, "--stdin")
    )
    assert [row["prompt"] for row in both] == ["Add up column B", "Sum of A1 to A9"]
    single = json.loads(ask(capsys, monkeypatch, [], *common, "--prompt", "Sum of A1 to A9"))
    assert single == both[1]
    system = json.loads(
        ask(capsys, monkeypatch, [], *common, "--prompt", "Sum of A1 to A9", "--system", "=A1")
    )
    assert system["prompt"] == single["prompt"]
    assert main(["generate", str(run)]) == 2
    assert main(["generate", str(run), "--stdin", "--prompt", "x"]) == 2
    assert "either --prompt TEXT or --stdin" in capsys.readouterr().err


def test_in_a_terminal_ctrl_c_stops_nothing_but_the_answer_and_ctrl_d_leaves(run):
    leader, follower = pty.openpty()
    arguments = [sys.executable, "-m", "mlxsched", "chat", str(run), "--max-tokens", "8"]
    process = subprocess.Popen(arguments, stdin=follower, stdout=follower, stderr=follower, close_fds=True)
    os.close(follower)
    seen = b""

    def wait_for(text: bytes, again: Callable[[], object] = lambda: None) -> None:
        """Read until ``text`` comes; call ``again`` every three seconds until then."""
        nonlocal seen
        end = time.monotonic() + 120
        while text not in seen and time.monotonic() < end:
            if select.select([leader], [], [], 3)[0]:
                seen += os.read(leader, 4096)
            else:
                again()
        assert text in seen, seen
        seen = seen.partition(text)[2]

    def interrupt() -> None:
        process.send_signal(signal.SIGINT)

    wait_for(b"> ")
    interrupt()
    # Readline blocks until the next key or signal if one comes between its prompt and its first wait.
    wait_for(b"Ctrl-D or /quit leaves", again=interrupt)
    wait_for(b"> ")
    os.write(leader, b"Add up column B\n")
    wait_for(b"> ")
    os.write(leader, b"/help\n")
    wait_for(b"/reset")
    wait_for(b"> ")
    os.write(leader, b"\x04")
    assert process.wait(timeout=60) == 0
    os.close(leader)
