"""The command as a whole: listing, suggestions, exit codes, and what a mistake looks like."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest

from mlxsched.cli import main as cli_main
from mlxsched.cli.main import COMMANDS, main, module_of


def test_help_lists_every_command_with_a_line(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, line in COMMANDS.items():
        assert f"  {name} " in out
        assert line in out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_exists_and_its_help_has_an_example(name, capsys):
    module = importlib.import_module(module_of(name))
    assert isinstance(module.command, click.Command)
    assert main([name, "--help"]) == 0
    assert f"mlxsched {name}" in capsys.readouterr().out.partition("\n")[2]


def test_no_command_of_the_package_is_missing_from_the_table():
    from pathlib import Path

    modules = {
        path.stem.rstrip("_").replace("_", "-")
        for path in Path(cli_main.__file__).parent.glob("*.py")
        if "\ncommand = " in (text := path.read_text()) or "\ndef command(" in text
    }
    assert modules == set(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["prests"], "No such command 'prests'. Did you mean 'presets'?"),
        (["xyzzy"], "The commands are"),
        (["presets", "--jsn"], "Did you mean '--json'?"),
        (["presets", "show"], "Missing argument 'NAME'"),
        (["--versoin"], "--version"),
        (["-version"], "No such option: -version. Did you mean '--version'?"),
        (
            ["-preset", "laptop"],
            "No such option: -preset. Put the flags of a command after it: mlxsched COMMAND --preset.",
        ),
        (["train", "--max-steps", "100"], "Write `--steps 100`"),  # not only a similar name
        (["--model", "x"], "Put the flags of a command after it: mlxsched COMMAND --model."),
        (["-c", "run.yaml", "train"], "Put the flags of a command after it: mlxsched COMMAND -c."),
        (["--preset", "laptop"], "Put the flags of a command after it: mlxsched COMMAND --preset."),
        (["presets", "-json"], "No such option: -json. Did you mean '--json'?"),
        (["env", "-xyz"], "No such option '-x'."),
    ],
)
def test_a_usage_mistake_ends_with_2_and_a_hint(arguments, part, capsys):
    assert main(arguments) == 2
    streams = capsys.readouterr()
    assert part in streams.err
    assert "Traceback" not in streams.err
    assert streams.out == ""


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "mlxsched 0.1.0\n"


def test_python_m_runs_the_same_command():
    found = subprocess.run(
        [sys.executable, "-m", "mlxsched", "presets", "show", "nope"], capture_output=True, text=True
    )
    assert found.returncode == 2
    assert found.stderr.startswith("Error: No such preset: 'nope'.")
    assert "Traceback" not in found.stderr


@pytest.fixture
def failing(monkeypatch):
    """Put a command in the table that raises what it is given."""

    def install(error: BaseException) -> None:
        @click.command()
        def command() -> None:
            raise error

        monkeypatch.setitem(sys.modules, "mlxsched.cli.failing", type(sys)("mlxsched.cli.failing"))
        sys.modules["mlxsched.cli.failing"].command = command
        monkeypatch.setitem(COMMANDS, "failing", "Fails.")

    return install


def test_each_error_class_ends_with_its_exit_code_and_one_message(failing, capsys):
    from mlxsched.errors import ChecksFailed, DataError, RunError, Stopped

    for error, code in [
        (DataError("data.jsonl:3: no"), 2),
        (RunError("no"), 1),
        (ChecksFailed("no"), 3),
        (Stopped("no", 15), 143),
    ]:
        failing(error)
        assert main(["failing"]) == code
        # A stop that was asked for is no error.
        start = "" if isinstance(error, Stopped) else "Error: "
        assert capsys.readouterr().err == f"{start}{error}\n"


def test_what_an_error_quotes_cannot_command_the_terminal(failing, capsys):
    from mlxsched.errors import DataError

    failing(DataError("data.jsonl:3: \x1b[2Jgone\x07"))
    assert main(["failing"]) == 2
    assert capsys.readouterr().err == "Error: data.jsonl:3: gone\n"


def test_ctrl_c_ends_with_130_and_a_line(failing, capsys):
    failing(KeyboardInterrupt())
    assert main(["failing"]) == 130
    assert capsys.readouterr().err.strip() == "Stopped."


def test_ctrl_c_before_a_run_has_begun_says_so(capsys, monkeypatch, tmp_path):
    def interrupted(*arguments, **flags):
        raise KeyboardInterrupt

    monkeypatch.setattr("mlxsched.training.session.prepare", interrupted)
    assert main(["train", "--iters", "1", "--run-dir", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err.endswith("Stopped before the training began.\n")
    assert not (tmp_path / "run").exists()


def test_a_bug_is_told_in_short_unless_the_traceback_is_asked_for(failing, capsys, monkeypatch):
    monkeypatch.delenv("MLXSCHED_DEBUG", raising=False)
    failing(ZeroDivisionError("by zero"))
    assert main(["failing"]) == 1
    message = capsys.readouterr().err
    assert "ZeroDivisionError: by zero" in message
    assert "MLXSCHED_DEBUG=1" in message
    assert "Traceback" not in message
    monkeypatch.setenv("MLXSCHED_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["failing"])


@pytest.mark.parametrize("arguments", [["presets", "show", "laptop"], ["schedules"], ["--help"]])
def test_a_closed_pipe_ends_quietly_with_the_code_of_sigpipe(arguments):
    """Printed by click, by rich, and by click's own help."""
    command = [sys.executable, "-m", "mlxsched", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=20) == 141
