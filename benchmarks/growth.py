"""What `mlxsched plan` costs on large data sets: CPU time, wall time and memory of the process and its children.

    python benchmarks/growth.py chats --rows 300000                    # chats of one to three exchanges
    python benchmarks/growth.py chats --rows 300000 --model MODEL      # with another tokenizer and template
    python benchmarks/growth.py chats --template tests/data/qwen3.jinja   # the bundled model with another template
    python benchmarks/growth.py texts --rows 1000000                   # rows {"text": ..}

The rows are made in a temporary folder, and so is the cache: each run tokenizes everything. `--again` plans a second
time, from the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import mlxsched

WORDS = [
    "the",
    "a",
    "of",
    "to",
    "and",
    "in",
    "for",
    "with",
    "on",
    "that",
    "is",
    "are",
    "was",
    "it",
    "this",
    "how",
    "many",
    "rows",
    "value",
    "column",
    "total",
    "between",
    "first",
    "last",
    "average",
    "price",
    "order",
    "customer",
    "date",
    "month",
    "report",
    "please",
    "show",
    "find",
    "list",
    "count",
    "return",
    "query",
    "table",
    "filter",
    "group",
    "where",
    "because",
    "result",
    "example",
    "explain",
    "simple",
    "model",
    "answer",
    "question",
    "number",
    "second",
    "under",
    "over",
    "each",
    "every",
]
SYSTEM = "You are a helpful assistant. Answer briefly."


def text(draw: random.Random, least: int, most: int) -> str:
    """A sentence of random words."""
    return " ".join(draw.choices(WORDS, k=draw.randint(least, most))).capitalize() + "."


def chat(draw: random.Random) -> dict[str, object]:
    """One to three exchanges, a third of them behind a system prompt: a median of about 70 words."""
    messages = [{"role": "system", "content": SYSTEM}] if draw.random() < 1 / 3 else []
    for _ in range(draw.choice((1, 1, 2, 3))):
        messages.append({"role": "user", "content": text(draw, 4, 20)})
        messages.append({"role": "assistant", "content": text(draw, 4, 50)})
    return {"messages": messages}


def rows(kind: str, count: int) -> Iterator[dict[str, object]]:
    """``count`` rows; the same ones each time."""
    draw = random.Random(0)
    for _ in range(count):
        yield chat(draw) if kind == "chats" else {"text": text(draw, 10, 100)}


def write(folder: Path, kind: str, count: int) -> int:
    """Write the training rows and 100 for validation; the bytes written."""
    for name, n in (("valid", 100), ("train", count)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(kind, n))
    return (folder / "train.jsonl").stat().st_size


def with_template(folder: Path, template: Path) -> str:
    """A copy of the bundled model with another ChatML template, in which turns end with this model's EOS token."""
    model = shutil.copytree(Path(mlxsched.__file__).parent / "bundled/tiny", folder / "model")
    path = model / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["chat_template"] = template.read_text().replace("<|im_end|>", config["eos_token"])
    path.write_text(json.dumps(config))
    return str(model)


def measured(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Run a command; returns its wall-clock and CPU seconds, and the peak memory in MB of it and its children.

    The memory is the resident set of the process, the memory of it and its children without mapped files, and the proportional
    set of all of them (each shared page counted once), mapped files included.
    """
    started = time.monotonic()
    with open(os.devnull, "wb") as nothing:
        process = os.posix_spawnp(
            command[0], command, environment, file_actions=[(os.POSIX_SPAWN_DUP2, nothing.fileno(), 1)]
        )
        own = proportional = 0.0
        while not (found := os.wait4(process, os.WNOHANG))[0]:
            family = [process, *_children(process)]
            own = max(own, sum(_kilobytes(each, "status", "RssAnon") for each in family) / 2**10)
            proportional = max(
                proportional, sum(_kilobytes(each, "smaps_rollup", "Pss") for each in family) / 2**10
            )
            time.sleep(0.05)
    _, status, usage = found
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    cpu = usage.ru_utime + usage.ru_stime
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {
        "wall": time.monotonic() - started,
        "cpu": cpu,
        "peak_mb": usage.ru_maxrss / unit,
        "own_mb": own,
        "all_mb": proportional,
    }


def _children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _kilobytes(process: int, file: str, name: str) -> int:
    """A number that Linux reports about the memory of a process; 0 if it is unknown."""
    try:
        lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def main() -> None:
    """Make the rows, plan, print a row of the table for each run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("chats", "texts"))
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--template", type=Path, help="chat template for the bundled model; replaces --model")
    parser.add_argument("--again", action="store_true", help="plan once more, from the cache")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        data.mkdir()
        size = write(data, given.kind, given.rows)
        model = with_template(Path(folder), given.template) if given.template else given.model
        print(f"{given.rows:,} {given.kind}, {size / 1e6:.0f} MB, {given.template or model}")
        environment = {**os.environ, "MLXSCHED_CACHE": str(Path(folder, "cache"))}
        plan = [
            sys.executable,
            "-m",
            "mlxsched",
            "plan",
            "--data",
            str(data),
            "--model",
            model,
            "--json",
            "--no-estimate",
        ]
        for name in ("tokenizing", "from the cache")[: 1 + given.again]:
            found = measured(plan, environment)
            print(
                f"| {name} | {found['cpu']:.1f} CPU s | {found['wall']:.1f} s "
                f"| {found['peak_mb']:.0f} MB; with children {found['all_mb']:.0f} MB, "
                f"{found['own_mb']:.0f} MB without mapped files |",
                flush=True,
            )


if __name__ == "__main__":
    main()
