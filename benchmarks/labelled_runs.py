"""Train runs with known faults, and healthy ones, for `mlxsched diagnose` to be judged by.

Each run is a real training of one of two small models on one of two data sets, whose fault is made on purpose: a rate that
is too high, rows of garbage, a schedule that is cut off, a machine that slows down. About two fifths are healthy: every
preset, several lengths and rates. The runs are written as run directories below ``--out``, with ``labels.json`` beside
them; runs that are there are kept, so an interrupted generation goes on.

    python benchmarks/labelled_runs.py --out /tmp/labelled --runs 320
    python benchmarks/diagnosis.py /tmp/labelled
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlxsched.platform.blas import preload

preload()

import mlx.core as mx  # noqa: E402  after the BLAS

from mlxsched.config import load_config  # noqa: E402
from mlxsched.errors import DivergedError, RunError  # noqa: E402
from mlxsched.model.load import LoadedModel, load_model  # noqa: E402
from mlxsched.runs.directory import RunDirectory  # noqa: E402
from mlxsched.runs.events import Event, UpdateMade  # noqa: E402
from mlxsched.training.acceleration import accelerate  # noqa: E402
from mlxsched.training.assembly import make_engine, make_evaluator, make_loader, make_pace  # noqa: E402
from mlxsched.training.loop import Loop  # noqa: E402
from mlxsched.training.policies.base import Policy  # noqa: E402
from mlxsched.training.policies.divergence import NonFinite, Spikes  # noqa: E402
from mlxsched.training.policies.evaluation import Evaluation  # noqa: E402
from mlxsched.training.run import create_run  # noqa: E402
from mlxsched.training.session import prepare  # noqa: E402

PRESETS = ("laptop", "lora", "all-purpose", "wsd", "one-cycle", "large-dataset", "full")
ROWS = 400  # of the generated data set


@dataclass(frozen=True)
class Case:
    """A run to train: its settings and what is done to it on purpose."""

    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None
    data: str = ""  # the data set to be used, or what is appended to its name
    stop_at: float = 1.0  # share of the updates after which it is abandoned
    sleeps: bool = False
    leaks: bool = False


def healthy(draw: random.Random) -> Case:
    """A preset over some length, or usual settings of one's own."""
    updates = draw.choice([60, 100, 160])
    if draw.random() < 0.6:
        preset = draw.choice(PRESETS)
        accumulation = 4 if preset == "laptop" else 1
        return Case(
            "healthy", {"iters": updates * accumulation, "batch_size": 1 if accumulation > 1 else 4}, preset
        )
    rate = 10 ** draw.uniform(-3.7, -3)
    settings = {
        "iters": updates,
        "learning_rate": rate,
        "schedule": draw.choice(["linear", "cosine", "wsd", "one_cycle"]),
        "batch_size": draw.choice([4, 8]),
        "warmup": draw.choice([0.03, 0.1]),
        "lora_parameters.rank": draw.choice([8, 16]),
    }
    return Case("healthy", settings)


def constant(rate: float, updates: int, **more: Any) -> dict[str, Any]:
    """Settings of a run at one rate."""
    return {
        "iters": updates,
        "learning_rate": rate,
        "schedule": "constant",
        "warmup": 0,
        "batch_size": 4,
        **more,
    }


def diverged(draw: random.Random) -> Case:
    """A rate that destroys what the model knew."""
    rate = 10 ** draw.uniform(-1.2, 0.5)
    return Case("diverged", constant(rate, draw.choice([40, 80]), max_grad_norm=0.0), data="known")


def early_explosion(draw: random.Random) -> Case:
    """No warmup at a rate that needs one; the decay saves the run."""
    updates, rate = draw.choice([100, 160]), 10 ** draw.uniform(-2.15, -1.95)
    schedule = draw.choice(
        ["polynomial(power=8)", f"multistep(milestones=[{draw.randint(4, 6)}], factor=0.1)"]
    )
    settings = {"iters": updates, "learning_rate": rate, "schedule": schedule, "warmup": 0, "batch_size": 4}
    return Case("early_explosion", {**settings, "max_grad_norm": 0.0}, data="known")


def spike(draw: random.Random) -> Case:
    """Rows of garbage, or a jump of the rate in mid-run."""
    updates = draw.choice([100, 160])
    settings = {"iters": updates, "learning_rate": 3e-4, "schedule": "linear", "batch_size": 4, "warmup": 0.1}
    if draw.random() < 0.5:
        return Case("spike", settings, data="garbage")
    at = int(updates * draw.uniform(0.4, 0.7))
    high = draw.uniform(0.015, 0.025)
    jump = f"piecewise(boundaries=[0, {at}, {at + 1}], values=[4e-4, {high:.3f}, 3e-4], shape='constant')"
    return Case("spike", {**settings, "schedule": jump, "max_grad_norm": 0.0})


def oscillating(draw: random.Random) -> Case:
    """A constant rate near the edge, and few rows an update."""
    rate = 10 ** draw.uniform(-2.7, -2.5)
    return Case("oscillating", constant(rate, 200, batch_size=draw.choice([2, 4])), data="known")


def too_slow(draw: random.Random) -> Case:
    """A rate a hundredth of what is needed."""
    settings = {"iters": draw.choice([100, 160]), "learning_rate": 10 ** draw.uniform(-7, -5.8)}
    return Case("too_slow", {**settings, "schedule": draw.choice(["linear", "constant"]), "batch_size": 4})


def early_plateau(draw: random.Random) -> Case:
    """Nothing left to learn for the one small matrix that is trained, at a rate that goes on."""
    settings = constant(10 ** draw.uniform(-2.1, -1.9), 240, batch_size=8)
    few = {"lora_parameters.rank": 1, "lora_parameters.keys": ["self_attn.v_proj"], "num_layers": 1}
    return Case("early_plateau", {**settings, **few})


def overfitting(draw: random.Random) -> Case:
    """A few rows, many times."""
    settings = {
        "epochs": draw.choice([45, 60]),
        "learning_rate": 10 ** draw.uniform(-2.9, -2.6),
        "batch_size": 4,
    }
    return Case("overfitting", {**settings, "schedule": draw.choice(["linear", "constant"])}, data="few")


def underfitting(draw: random.Random) -> Case:
    """A decay that is over before the loss has fallen."""
    updates = draw.choice([120, 160])
    steps = int(updates * draw.uniform(0.12, 0.3))
    spec = draw.choice(["warmup_linear", "warmup_cosine"])
    rate = 10 ** draw.uniform(-3.7, -3.2)
    schedule = f"{spec}(peak={rate:.2e}, steps={steps}, warmup=4, end={rate / 100:.1e})"
    return Case("underfitting", {"iters": updates, "schedule": schedule, "batch_size": 4})


def slow_decay(draw: random.Random) -> Case:
    """A schedule made for a run many times as long."""
    updates = draw.choice([100, 160])
    rate, spec = 10 ** draw.uniform(-3.5, -2.9), draw.choice(["warmup_linear", "warmup_cosine"])
    schedule = f"{spec}(peak={rate:.2e}, steps={updates * draw.choice([3, 5, 10])}, warmup=10)"
    return Case("slow_decay", {"iters": updates, "schedule": schedule, "batch_size": 4})


def interrupted(draw: random.Random) -> Case:
    """A run that was stopped and never resumed."""
    settings = {"iters": draw.choice([120, 200]), "learning_rate": 3e-4, "batch_size": 4}
    schedule = draw.choice(["linear", "cosine", "wsd"])
    return Case("interrupted", {**settings, "schedule": schedule}, stop_at=draw.uniform(0.3, 0.75))


def still_improving(draw: random.Random) -> Case:
    """Too few updates at a modest rate."""
    settings = {
        "iters": draw.choice([40, 60, 80]),
        "learning_rate": 10 ** draw.uniform(-4.1, -3.8),
        "warmup": 0.05,
    }
    settings |= {"schedule": draw.choice(["constant", "wsd"]), "batch_size": 4}
    return Case("still_improving", settings, data="orders")


def slowing_down(draw: random.Random) -> Case:
    """A machine that takes longer and longer."""
    settings = {"iters": draw.choice([100, 160]), "learning_rate": 3e-4, "batch_size": 4}
    return Case("slowing_down", settings, sleeps=True)


def memory_growth(draw: random.Random) -> Case:
    """Arrays that nobody frees."""
    settings = {"iters": draw.choice([100, 160]), "learning_rate": 3e-4, "batch_size": 4}
    return Case("memory_growth", settings, leaks=True)


def non_finite(draw: random.Random) -> Case:
    """Updates that would make the weights infinite."""
    return Case("non_finite", constant(10 ** draw.uniform(25, 30), 20, max_grad_norm=0.0))


FAULTS: tuple[Callable[[random.Random], Case], ...] = (
    diverged, early_explosion, spike, oscillating, too_slow, early_plateau, overfitting, underfitting, slow_decay,
    interrupted, still_improving, slowing_down, memory_growth, non_finite,
)  # fmt: skip


def cases(count: int, seed: int) -> Iterator[tuple[str, str, Case]]:
    """``count`` runs as (name, model, case): two of five healthy, the faults in turn."""
    draw = random.Random(seed)
    for number in range(count):
        make = healthy if number % 5 in (0, 3) else FAULTS[(number - number // 5 * 2) % len(FAULTS)]
        case = make(draw)
        case = replace(case, data=_rows(draw, case.data), settings={**case.settings, "seed": number})
        yield f"{number:03d}-{case.label}", draw.choice(["tiny", "second", "second"]), case


def _rows(draw: random.Random, wanted: str) -> str:
    """The data set of a case: "known" is what both models were pretrained on, so that there is something to destroy."""
    name = {"known": "excel", "orders": "orders"}.get(wanted) or draw.choice(["excel", "orders"])
    if wanted in ("known", "orders"):
        return name
    return f"{name}-{wanted}" if wanted else name


# Data and models


def orders(count: int, draw: random.Random) -> list[dict[str, str]]:
    """Sentences about orders, and the same facts as JSON."""
    names, things = ["Ana", "Ben", "Chloe", "Dev", "Eli", "Fay"], ["pens", "lamps", "desks", "mugs", "chairs"]
    rows = []
    for _ in range(count):
        who, what, many, day = (
            draw.choice(names),
            draw.choice(things),
            draw.randint(2, 90),
            draw.randint(1, 28),
        )
        text = draw.choice(
            [
                f"{who} ordered {many} {what} on May {day}",
                f"on May {day} we sent {many} {what} to {who}",
                f"{many} {what} for {who}, due May {day}",
            ]
        )
        rows.append(
            {"prompt": text, "completion": json.dumps({"name": who, "item": what, "count": many, "day": day})}
        )
    return rows


def garbage(draw: random.Random) -> dict[str, str]:
    """A row that teaches nothing: characters at random."""
    letters = [chr(draw.randint(33, 126)) for _ in range(draw.randint(120, 220))]
    return {"prompt": "row", "completion": "".join(letters)}


def write_data(folder: Path) -> None:
    """All data sets, in mlx-lm's format."""
    from mlxsched.bundled import data_path

    excel = [json.loads(line) for line in (data_path("excel") / "train.jsonl").read_text().splitlines()]
    valid = [json.loads(line) for line in (data_path("excel") / "valid.jsonl").read_text().splitlines()]
    draw = random.Random(5)
    made = orders(ROWS + 40, draw)
    for name, (train, held_out) in {
        "excel": (excel[:600], valid[:40]),
        "orders": (made[:ROWS], made[ROWS:]),
    }.items():
        variants = {"": train, "-few": train[:12]}
        bad = list(train)
        for at in draw.sample(range(len(bad)), len(bad) // 100):
            bad[at] = garbage(draw) if "prompt" in bad[at] else _as_chat(garbage(draw), bad[at])
        variants["-garbage"] = bad
        for suffix, rows in variants.items():
            place = folder / (name + suffix)
            place.mkdir(parents=True, exist_ok=True)
            for split, lines in (("train", rows), ("valid", held_out)):
                (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))


def _as_chat(row: dict[str, str], like: dict[str, Any]) -> dict[str, Any]:
    if "messages" not in like:
        raise SystemExit(f"the bundled rows have changed their format: {sorted(like)}")
    said = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
    return {"messages": said}


def second_model(folder: Path) -> Path:
    """A model of another shape, pretrained for a few minutes by the script that made the bundled one."""
    if (folder / "config.json").exists():
        return folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
    import make_tiny_model as maker

    maker.CONFIG |= {
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "intermediate_size": 176,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    sys.argv = ["make_tiny_model", "--out", str(folder), "--updates", "900"]
    maker.main()
    return folder


# Training


class Disturbance:
    """A sink that makes the machine worse while the run goes on."""

    def __init__(self, case: Case, updates: int) -> None:
        self._case, self._updates, self._held = case, updates, []  # type: ignore[var-annotated]

    def __call__(self, event: Event) -> None:
        if self._case.leaks and isinstance(event, UpdateMade):
            self._held.append(mx.zeros(1_000_000) + event.update)
            mx.eval(self._held[-1])

    def delay(self, update: int) -> float:
        """Seconds that the machine takes longer for ``update``."""
        share = update / self._updates
        return 0.25 * (share - 0.4) / 0.6 if self._case.sleeps and share > 0.4 else 0.0


class Slow(Policy):
    """Delays the updates from inside, so that their recorded time is longer."""

    def __init__(self, loop: Loop, disturbance: Disturbance) -> None:
        original = loop.engine.update

        def update(batches: Any, rate: float) -> Any:
            time.sleep(disturbance.delay(batches.update))
            return original(batches, rate)

        loop.engine.update = update  # type: ignore[method-assign]


def train(path: Path, case: Case, loaded: LoadedModel, data: Path) -> str:
    """Train ``case`` into the run directory ``path``; returns its status."""
    flags: dict[str, Any] = {"val_batches": -1, "test": False, "data": str(data / case.data), **case.settings}
    config = load_config(preset=case.preset, flags=flags)
    made = prepare(config.config, config.origins, loaded=loaded)
    paths, pace = accelerate(made, None, lambda text: None), make_pace(made)
    mx.reset_peak_memory()  # the self-check's, which would hide a small leak
    run = create_run(made, path)
    with run.lock():
        status = _train(made, run, case, paths, pace)
        run.update_info(status=status, update=int(run.read_metrics()[-1]["update"]) + 1)  # type: ignore[call-overload]
    return status


def _train(made: Any, run: RunDirectory, case: Case, paths: Any, pace: Any) -> str:
    disturbance = Disturbance(case, pace.updates)

    def emit(event: Event) -> None:
        disturbance(event)
        run.metrics.record(event)

    loop = Loop(
        make_engine(made, paths.training),
        make_loader(made, paths.training, pace),
        pace,
        emit,
        evaluator=make_evaluator(made, paths.validation),
    )
    loop.policies = [
        Evaluation(lambda: max(pace.updates // 10, 1)),
        Spikes(),
        NonFinite(5, False, lambda update: "", ""),
    ]
    if case.sleeps:
        loop.policies.append(Slow(loop, disturbance))
    made.loaded.model.train()
    try:
        while loop.step():
            if loop.progress.update >= case.stop_at * pace.updates:
                return "stopped" if case.stop_at < 1 else "finished"
        return "finished"
    except (DivergedError, RunError):
        return "failed"
    finally:
        loop.engine.load_into_model()


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out: Path = arguments.out
    if not (out / "data").exists():
        write_data(out / "data")
    models = {"tiny": "tiny", "second": str(second_model(out / "second"))}
    labels: dict[str, Any] = {}
    for number, (name, model, case) in enumerate(cases(arguments.runs, arguments.seed)):
        labels[name] = {"label": case.label, "model": model, "data": case.data}
        if not (out / "runs" / name / "metrics.jsonl").exists():
            started = time.perf_counter()
            status = train(out / "runs" / name, case, load_model(models[model]), out / "data")
            print(
                f"{number + 1}/{arguments.runs} {name} {status} {time.perf_counter() - started:.1f} s",
                flush=True,
            )
        (out / "labels.json").write_text(json.dumps(labels, indent=1))


if __name__ == "__main__":
    main()
