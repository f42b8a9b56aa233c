"""What the documents, the presets and the help tell readers to type exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mlxsched.cli.main import COMMANDS, cli
from mlxsched.config.presets import preset_names

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAM = re.compile(r"(?:^|[|;&(]\s*|\s)(mlxsched\s(?:\"[^\"]*\"|[^|;&#)\"])*)")


def fenced(text: str) -> Iterator[str]:
    """Yield the shell lines of fenced blocks, continued ones joined."""
    for kind, block in re.findall(
        r"^[ ]*```(\w*)[^\n]*\n(.*?)^[ ]*```", text, flags=re.MULTILINE | re.DOTALL
    ):
        if kind in {"", "sh", "bash", "shell", "console"}:
            yield from re.sub(r"\s*\\\n\s*", " ", block).splitlines()


def command_lines(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        line = line.strip().removeprefix("$ ").replace("python -m mlxsched", "mlxsched")
        if not line.startswith(("#", "pip ", "git ")):
            yield from (found.strip() for found in PROGRAM.findall(line))


def sources() -> Iterator[tuple[str, str]]:
    """Yield where a command line stands, and the line."""
    for path in DOCUMENTS:
        for line in command_lines(fenced(path.read_text())):
            yield path.name, line
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        for line in re.findall(r"# Run:\s*(mlxsched .*)", path.read_text()):
            yield path.name, line
    for name, command in commands(cli, "mlxsched"):
        for line in re.findall(r"^\s*(mlxsched .*)$", command.help or "", flags=re.MULTILINE):
            yield f"{name} --help", line


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    yield path, group
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command, name
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def problem(line: str) -> str:
    """Return what is wrong with a command line, or an empty string."""
    command: click.Command = cli
    words = shlex.split(line)[1:]
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        if found is None:
            return f"no command {name}"
        command = found
    flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    if command.context_settings.get("ignore_unknown_options"):  # `mlxsched lora` hands its flags to mlx-lm
        from mlx_lm.lora import build_parser

        flags |= set(build_parser()._option_string_actions)
    for word in words:
        name = word.partition("=")[0]
        if re.match(r"--?[a-z]", word) and name not in flags | {"--help", "-h"}:
            return f"no flag {name}"
    if "--preset" in words:
        preset = words[words.index("--preset") + 1]
        if preset not in preset_names() and not preset.isupper():
            return f"no preset {preset}"
    return ""


@pytest.mark.parametrize(("place", "line"), sorted(set(sources())))
def test_what_readers_are_told_to_type_exists(place, line):
    assert not problem(line), f"{place}: {line}"


def test_the_check_finds_what_is_wrong():
    assert problem("mlxsched tarin --preset laptop") == "no command tarin"
    assert problem("mlxsched presets copi laptop x") == "no command copi"
    assert problem("mlxsched presets --jsn") == "no flag --jsn"
    assert problem("mlxsched presets show laptop") == ""
    assert problem("mlxsched lora --confg x") == "no flag --confg"
    text = "```sh\n$ mlxsched presets \\\n    --json | head  # all\n```\n```python\nmlxsched.x\n```\n"
    assert list(command_lines(fenced(text))) == ["mlxsched presets --json"]


def test_every_command_gives_an_example_in_its_help():
    for name, command in commands(cli, "mlxsched"):
        assert re.search(r"^\s*mlxsched ", command.help or "", flags=re.MULTILINE), (
            f"{name} --help has no example"
        )


def test_the_readme_names_every_command():
    readme = (ROOT / "README.md").read_text()
    missing = [name for name in COMMANDS if not re.search(rf"mlxsched[ `|]+{name}|`{name}`", readme)]
    assert not missing
