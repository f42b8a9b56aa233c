"""The commands and the code of the guides run, in the order of the page, in a folder of its own.

A fenced block with ``title="NAME"`` is written to that file. Shell and Python blocks are run. A comment
``# exit code N`` on a shell line says how it should end; ``<!-- not run: REASON -->`` above a block leaves it out.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mlxsched.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
GUIDES = [
    "docs/index.md",
    "docs/first-run.md",
    "docs/which-rate.md",
    "docs/reading-a-run.md",
    "docs/troubleshooting.md",
    "docs/memory.md",
    "docs/export.md",
    "docs/coming-from-mlx-lm.md",
    "docs/coming-from-hugging-face.md",
    "docs/extend-and-cooldown.md",
    "docs/distributed.md",
]
SHELL = {"sh", "bash", "shell", "console"}
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n+)?^```(?P<kind>\w*)(?P<info>[^\n]*)\n(?P<text>.*?)^```",
    flags=re.MULTILINE | re.DOTALL,
)
ENDS = re.compile(r"\s+# exit code (\d+).*$")


class Block(NamedTuple):
    kind: str
    text: str
    title: str  # the file to write it to, or an empty string
    run: bool


def blocks(page: str) -> Iterator[Block]:
    for found in BLOCK.finditer(page):
        title = re.search(r'title="([^"]+)"', found["info"])
        run = found["kind"] in SHELL | {"python"} and not found["reason"]
        yield Block(found["kind"], found["text"], title[1] if title else "", run)


def lines(text: str) -> Iterator[tuple[str, int]]:
    """The commands of a shell block, each with the exit code that it should end with."""
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        line = line.removeprefix("$ ")
        if line.strip() and not line.startswith("#"):
            ends = ENDS.search(line)
            yield line, int(ends[1]) if ends else 0


def run_line(line: str) -> int:
    """Run one command: in this process, where imports are made once, or in a shell if it is more than ours."""
    words = shlex.split(line, comments=True)
    if words[0] == "mlxsched" and not re.search("[|<>;&$]", re.sub(r"\"[^\"]*\"|#.*", "", line)):
        return main(words[1:])
    return subprocess.run(["bash", "-o", "pipefail", "-c", line], timeout=300, check=False).returncode


def run(block: Block) -> None:
    if block.kind == "python":
        subprocess.run([sys.executable, "-c", block.text], timeout=300, check=True)
        return
    for line, code in lines(block.text):
        assert run_line(line) == code, line


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, as a reader would, without a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES)
def test_a_guide_runs(page, folder):
    for block in blocks((ROOT / page).read_text()):
        if block.title:
            (folder / block.title).write_text(block.text)
        elif block.run:
            run(block)


def test_what_is_run_and_what_is_not():
    page = '```yaml title="a.yaml"\nb: 1\n```\n\n<!-- not run: needs macOS -->\n```sh\ncaffeinate\n```\n```python\n1\n```\n'
    assert list(blocks(page)) == [
        Block("yaml", "b: 1\n", "a.yaml", False),
        Block("sh", "caffeinate\n", "", False),
        Block("python", "1\n", "", True),
    ]


def test_a_command_must_end_as_the_page_says(folder):
    run(
        Block(
            "sh",
            '$ mlxsched env\n\n# a comment\nmlxsched check \\\n  "constant(peak=1)"  # exit code 3\n',
            "",
            True,
        )
    )
    run(Block("console", "mlxsched env | grep -q mlx\nfalse  # exit code 1: why\n", "", True))
    for text in ("mlxsched env # exit code 2", "false", "mlxsched no-such"):
        with pytest.raises(AssertionError):
            run(Block("sh", text, "", True))
    with pytest.raises(subprocess.CalledProcessError):
        run(Block("python", "1 / 0", "", True))
