"""One worker and two on this machine, side by side: the same run, over MLX's ring on the loopback interface.

    python benchmarks/distributed.py                       # LoRA on a random Llama of 5M parameters
    python benchmarks/distributed.py --full                # all weights: the workers exchange 20 MB for each update
    python benchmarks/distributed.py --launcher            # two workers as mlx.launch starts them

Every process multiplies with one thread. Rounds alternate between one worker and two, and of each the lower figure counts,
since others may use the machine. ``update`` is the median time of an update. ``cpu`` is the CPU time of all processes together
for an update, the launcher's and the time spent waiting included: the difference between a run and one that makes only its
first updates. On cores that nobody else uses, two workers can be at most ``2 * cpu of one / cpu of two`` times as fast.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

os.environ["OPENBLAS_NUM_THREADS"] = "1"

from mlxsched.platform.blas import preload

preload()

from mlxsched.bench.shapes import config_of, random_model  # noqa: E402
from mlxsched.bundled import data_path, model_path  # noqa: E402

LENGTH = 128  # tokens of each row
FIRST = 3  # updates at the beginning, which compile


class Measured(NamedTuple):
    """Seconds and CPU seconds for an update, and the loss of the last one."""

    update: float
    cpu: float
    last_loss: float


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="train all weights in place of LoRA")
    parser.add_argument("--launcher", action="store_true", help="start two workers by mlx.launch")
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--rows", type=int, default=16, help="rows of an update")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model")
        make_data(folder / "data", options.updates * options.rows)
        command = [
            "train", "--model", str(folder / "model"), "--data", str(folder / "data"),
            "--batch-size", str(options.rows), "--max-seq-length", str(LENGTH), "--num-layers", "-1",
            "--fine-tune-type", "full" if options.full else "lora", "--learning-rate", "1e-4", "--warmup", "1",
            "--val-batches", "0", "--save-every", "1000", "--no-test", "--plain",
        ]  # fmt: skip
        found: dict[int, list[Measured]] = {1: [], 2: []}
        for _ in range(options.rounds):
            for workers, measured in found.items():
                measured.append(measure(workers, command, folder / "run", options.updates, options.launcher))
    report(found)


def make_model(target: Path) -> None:
    """A Llama with random weights and the tokenizer of the bundled model."""
    from mlx_lm.utils import save_model

    tokenizer = model_path("tiny")
    vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    sizes = {"hidden_size": 256, "num_hidden_layers": 6, "intermediate_size": 704, "vocab_size": vocabulary}
    config = config_of("llama-135m", **sizes, num_attention_heads=4, num_key_value_heads=2)
    target.mkdir()
    save_model(target, random_model(config), donate_model=True)
    (target / "config.json").write_text(json.dumps(config))
    for file in tokenizer.glob("*token*"):
        shutil.copy(file, target)


def make_data(target: Path, rows: int) -> None:
    """Rows of text, all of them longer than ``LENGTH`` tokens and cut to that."""
    target.mkdir()
    lines = (data_path("excel") / "train.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [" ".join(lines[(7 * row + place) % len(lines)] for place in range(6)) for row in range(rows)]
    (target / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def measure(workers: int, command: list[str], run: Path, updates: int, launcher: bool) -> Measured:
    """Train with so many workers: the first updates only, then all."""
    used = []
    for count in (FIRST, updates):
        shutil.rmtree(run, ignore_errors=True)
        before = cpu_of_children()
        train(workers, [*command, "--iters", str(count), "--run-dir", str(run)], launcher)
        used.append(cpu_of_children() - before)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    made = [record for record in records if record["kind"] == "train"]
    seconds = statistics.median(record["seconds"] for record in made[FIRST:])
    return Measured(seconds, (used[1] - used[0]) / (updates - FIRST), made[-1]["loss"])


def train(workers: int, command: list[str], launcher: bool) -> None:
    program = [sys.executable, "-m", "mlxsched", *command]
    for process in [start(program, {})] if workers == 1 else start_two(program, launcher):
        if process.wait():
            sys.exit(f"a worker failed; run it by hand: {' '.join(program)}")


def start_two(program: list[str], launcher: bool) -> list[subprocess.Popen[bytes]]:
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as server:
            ports.append(server.getsockname()[1])
    if launcher:
        launch = [str(Path(sys.executable).with_name("mlx.launch")), "--backend", "ring", "-n", "2"]
        return [start([*launch, "--starting-port", str(ports[0]), "--", *program], {})]
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump([[f"127.0.0.1:{port}"] for port in ports], file)
    return [start(program, {"MLX_RANK": str(rank), "MLX_HOSTFILE": file.name}) for rank in range(2)]


def start(program: list[str], environ: dict[str, str]) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    # mlx.launch reads its standard input, and spins on one that has ended.
    return subprocess.Popen(
        program, env=os.environ | environ, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet
    )


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(found: dict[int, list[Measured]]) -> None:
    """Print the best figures of each number of workers."""
    update, cpu = (
        {workers: min(getattr(one, name) for one in measured) for workers, measured in found.items()}
        for name in ("update", "cpu")
    )
    print(
        f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"
    )
    print("workers   update       cpu    last loss")
    for workers, measured in found.items():
        print(f"{workers:7}  {update[workers]:6.3f} s  {cpu[workers]:6.3f} s  {measured[-1].last_loss:.6f}")
    print(f"speed-up {update[1] / update[2]:.2f}; by CPU time at most {2 * cpu[1] / cpu[2]:.2f}")


if __name__ == "__main__":
    main()
