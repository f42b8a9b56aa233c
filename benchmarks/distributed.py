"""One worker and two on this machine, side by side: the same run, over MLX's ring on the loopback interface.

    python benchmarks/distributed.py                       # LoRA on a random Llama of 27M parameters
    python benchmarks/distributed.py --full                # all weights: the workers exchange 109 MB for each update
    python benchmarks/distributed.py --launcher            # two workers as mlx.launch starts them

Every process multiplies with one thread. Rounds alternate between one worker and two, and of each the round with the lower
median counts, since others may use the machine. ``update``: the median time of an update. ``cpu``: the CPU time that all
processes took together, from their start to their end; the launcher is one of them.
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

from shapes import config_of, random_model  # noqa: E402

from mlxsched.bundled import data_path, model_path  # noqa: E402

LENGTH = 128  # tokens of each row
SKIPPED = 2  # updates at the beginning, which compile


class Measured(NamedTuple):
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
            "train", "--model", str(folder / "model"), "--data", str(folder / "data"), "--epochs", "1",
            "--batch-size", str(options.rows), "--max-seq-length", str(LENGTH), "--num-layers", "-1",
            "--fine-tune-type", "full" if options.full else "lora", "--learning-rate", "1e-4", "--warmup", "1",
            "--val-batches", "0", "--save-every", "1000", "--no-test", "--plain",
        ]  # fmt: skip
        found: dict[int, list[Measured]] = {1: [], 2: []}
        for number in range(options.rounds):
            for workers in found:
                run = folder / f"run-{number}-{workers}"
                found[workers].append(
                    measure(workers, [*command, "--run-dir", str(run)], run, options.launcher)
                )
    report(found)


def make_model(target: Path) -> None:
    """A Llama with random weights and the tokenizer of the bundled model."""
    from mlx_lm.utils import save_model

    tokenizer = model_path("tiny")
    vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    sizes = {"hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1536, "vocab_size": vocabulary}
    config = config_of("llama-135m", **sizes, num_attention_heads=8, num_key_value_heads=4)
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


def measure(workers: int, command: list[str], run: Path, launcher: bool) -> Measured:
    """Train with so many workers."""
    before = cpu_of_children()
    program = [sys.executable, "-m", "mlxsched", *command]
    processes = [start(program, {})] if workers == 1 else start_two(program, launcher)
    for process in processes:
        if process.wait():
            sys.exit(f"a worker failed; run it by hand: {' '.join(program)}")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    updates = [record for record in records if record["kind"] == "train"]
    seconds = statistics.median(record["seconds"] for record in updates[SKIPPED:])
    return Measured(seconds, cpu_of_children() - before, updates[-1]["loss"])


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
    best = {workers: min(measured) for workers, measured in found.items()}
    print(
        f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"
    )
    print("workers   update      cpu   last loss")
    for workers, measured in best.items():
        print(f"{workers:7}  {measured.update:6.2f} s  {measured.cpu:5.1f} s   {measured.last_loss:.6f}")
    print(
        f"speed-up {best[1].update / best[2].update:.2f}, CPU time {best[2].cpu / best[1].cpu:.2f} times as much"
    )
    print(
        "all rounds:",
        {workers: [round(m.update, 2) for m in measured] for workers, measured in found.items()},
    )


if __name__ == "__main__":
    main()
