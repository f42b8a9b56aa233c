"""Real processes that train together over MLX's ring on the loopback interface.

Every process has a time limit: a test may fail, but never hang.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import pytest

from mlxsched.errors import UsageError
from mlxsched.model.evaluate import PartialLoss
from mlxsched.model.fast.forward_path import PLAIN
from mlxsched.runs.directory import RunDirectory
from mlxsched.training.assembly import make_evaluator
from mlxsched.training.workers.launch import launch_of

LIMIT = 240  # seconds: a training takes a few, a loaded machine may take ten times as long
UPDATES = 50
TRAIN = ["train", "--preset", "lora", "--plain", "--no-test", "--iters", str(UPDATES)]
TRAIN += ["--batch-size", "8", "--val-batches", "2", "--steps-per-eval", "20", "--save-every", "20"]


class Workers:
    """Processes with a rank and a hostfile, as mlx.launch starts them, but each under the control of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []

    def start(
        self, count: int, *command: str, folders: list[Path] | None = None
    ) -> list[subprocess.Popen[str]]:
        """Start ``python *command`` in ``count`` processes, each in its own of ``folders`` if given."""
        hosts = self.folder / f"hosts-{len(self.processes)}.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(count)]))
        started = []
        for rank in range(count):
            started.append(
                subprocess.Popen(
                    [sys.executable, *command],
                    env={**os.environ, "MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)},
                    cwd=folders[rank] if folders else self.folder,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        self.processes += started
        return started

    def train(self, count: int, *arguments: str, **more: list[Path]) -> list[subprocess.Popen[str]]:
        return self.start(count, "-m", "mlxsched", *arguments, **more)

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all open at once so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def ends(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and output of a process that must end by itself."""
    output, _ = process.communicate(timeout=LIMIT)
    return process.returncode, output


def wait_for_updates(run: Path, count: int) -> None:
    """Wait until a run has made ``count`` updates."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        if (run / "metrics.jsonl").exists() and len(records(run, "train")) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"{run} did not make {count} updates")


def records(run: Path, kind: str) -> list[dict[str, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [record for record in found if record["kind"] == kind]


def assert_same_run(run: Path, other: Path) -> None:
    """The same updates within the rounding of float32."""
    for kind, keys in (("train", ("loss", "grad_norm")), ("eval", ("loss",))):
        mine, theirs = records(run, kind), records(other, kind)
        exact = ("update", "lr", "tokens", "targets")
        assert [[r.get(k) for k in exact] for r in mine] == [[r.get(k) for k in exact] for r in theirs]
        for key in keys:
            assert [r[key] for r in mine] == pytest.approx([r[key] for r in theirs], rel=1e-5)
    assert distance(run, other) < 1e-5


def distance(run: Path, other: Path) -> float:
    """Of the adapters, relative to their norm."""
    mine, theirs = (mx.load(str(path / "adapters" / "adapters.safetensors")) for path in (run, other))
    assert mine.keys() == theirs.keys()
    apart = sum(float(((mine[name] - theirs[name]) ** 2).sum()) for name in mine)
    return math.sqrt(apart / sum(float((value**2).sum()) for value in theirs.values()))


def losses(run: Path) -> list[tuple[float, float]]:
    return [(record["update"], record["loss"]) for kind in ("train", "eval") for record in records(run, kind)]


def bytes_of(run: Path) -> bytes:
    return (run / "adapters" / "adapters.safetensors").read_bytes()


@pytest.fixture
def workers(tmp_path):
    made = Workers(tmp_path)
    yield made
    made.kill()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    subprocess.run(
        [sys.executable, "-m", "mlxsched", *TRAIN, "--run-dir", str(run)], check=True, timeout=LIMIT
    )
    return run


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The same run by two workers that mlx.launch started; with what they printed."""
    folder = tmp_path_factory.mktemp("together")
    run, printed = folder / "run", folder / "printed"
    launch = [str(Path(sys.executable).with_name("mlx.launch")), "--backend", "ring", "-n", "2"]
    launch += ["--starting-port", str(two_free_ports()), "--", sys.executable, "-m", "mlxsched"]
    with printed.open("w") as output:
        process = subprocess.Popen(
            [*launch, *TRAIN, "--run-dir", str(run), "--workers", "2"],
            stdin=subprocess.PIPE,  # open and silent: mlx.launch spins on one that has ended
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(LIMIT)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return run, printed.read_text()


def two_free_ports() -> int:
    """The first of two neighbouring ports that nobody listens on."""
    for port in range(33000, 60000, 2):
        try:
            with socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", port + 1)):
                return port
        except OSError:
            continue
    raise AssertionError("no free ports")


@pytest.mark.slow
def test_two_workers_make_one_workers_run(alone, together):
    run, printed = together
    assert RunDirectory.open(run).info.status == "finished", printed
    assert_same_run(run, alone)
    mine, theirs = (states(path)[-1] for path in (run, alone))
    assert mine.keys() == theirs.keys()
    counts = {key: value for key, value in theirs.items() if isinstance(value, int)}
    assert {key: mine[key] for key in counts} == counts
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in alone.iterdir())


@pytest.mark.slow
def test_worker_0_alone_prints(together):
    _, printed = together
    assert [printed.count(text) for text in ("Results", "Loading tiny", "Connecting 2 workers")] == [1, 1, 1]


@pytest.mark.slow
def test_killed_and_resumed_is_bit_identical(workers, together):
    run = workers.folder / "run"
    leader, other = workers.train(2, *TRAIN, "--run-dir", str(run))
    wait_for_updates(run, 24)  # beyond the checkpoint of update 20
    leader.kill()
    code, output = ends(other)
    assert code == 1
    assert "worker 1 of 2: the connection to another worker was lost" in output
    leader, other = workers.train(2, "resume", str(run), "--plain")
    assert [ends(leader)[0], ends(other)[0]] == [0, 0]
    assert bytes_of(run) == bytes_of(together[0])
    assert losses(run) == losses(together[0])


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_run_with_a_checkpoint(workers, alone):
    run = workers.folder / "run"
    leader, other = workers.train(2, *TRAIN, "--run-dir", str(run))
    wait_for_updates(run, 7)
    other.kill()
    code, output = ends(leader)
    made = len(records(run, "train"))
    assert code == 1
    assert f"The state after {made} updates is saved" in output
    assert RunDirectory.open(run).info.status == "failed"
    assert RunDirectory.open(run).checkpoints.updates()[-1] == made
    # One process alone finishes what two have begun.
    subprocess.run(
        [sys.executable, "-m", "mlxsched", "resume", str(run), "--plain"], check=True, timeout=LIMIT
    )
    assert_same_run(run, alone)


@pytest.mark.slow
def test_a_worker_that_hangs_ends_the_run_in_time(workers):
    run = workers.folder / "run"
    leader, other = workers.train(
        2, *TRAIN, "--iters", "400", "--run-dir", str(run), "--worker-timeout", "10"
    )
    wait_for_updates(run, 3)
    other.send_signal(signal.SIGSTOP)
    code, output = ends(leader)
    assert code == 1
    assert "another worker did not answer for 10 s. The state after" in output
    assert RunDirectory.open(run).checkpoints.updates()[-1] == len(records(run, "train"))


@pytest.mark.slow
def test_a_signal_to_worker_0_stops_all(workers):
    run = workers.folder / "run"
    leader, other = workers.train(2, *TRAIN, "--iters", "400", "--run-dir", str(run))
    wait_for_updates(run, 3)
    other.send_signal(signal.SIGINT)  # a Ctrl-C reaches all processes of a terminal
    leader.send_signal(signal.SIGINT)
    assert [ends(leader)[0], ends(other)] == [130, (130, "")]
    assert RunDirectory.open(run).info.status == "stopped"


@pytest.mark.slow
def test_other_data_on_another_machine_is_refused(workers):
    folders = [workers.folder / "one", workers.folder / "two"]
    for number, folder in enumerate(folders):
        folder.mkdir()
        row = {"prompt": "a b c", "completion": f"d e {number}"}
        (folder / "train.jsonl").write_text((json.dumps(row) + "\n") * 8)
    run = str(workers.folder / "run")
    leader, other = workers.train(
        2, "train", "--data", "train.jsonl", "--iters", "4", "--run-dir", run, folders=folders
    )
    code, output = ends(other)
    assert code == 2
    assert "worker 1 of 2: differs from worker 0 in: the content of the data" in output
    code, output = ends(leader)
    assert code == 2
    assert "worker 1 cannot train the same as worker 0" in output
    assert not Path(run).exists()


def test_another_number_of_workers_is_refused(workers):
    for process in workers.train(2, *TRAIN, "--workers", "3"):
        code, output = ends(process)
        assert code == 2
        assert "--workers 3, but 2 workers came up" in output


@pytest.mark.parametrize(
    "environ",
    [
        {"MLX_RANK": "0"},
        {"MLX_RANK": "0", "MLX_HOSTFILE": "no-such-file"},
        {"MLX_RANK": "0", "MLX_WORLD_SIZE": "two"},
        {"OMPI_COMM_WORLD_SIZE": "0"},
    ],
)
def test_an_incomplete_launch_is_refused(environ):
    """MLX itself would train in every process for itself."""
    with pytest.raises(UsageError):
        launch_of(environ)


def test_what_launchers_say(tmp_path):
    hosts = tmp_path / "hosts.json"
    hosts.write_text('[["10.0.0.1:5000"], ["10.0.0.2:5000"], ["10.0.0.3:5000"]]')
    assert launch_of({"MLX_RANK": "0", "MLX_HOSTFILE": str(hosts)}) == ("ring", 3)
    assert launch_of({"MLX_RANK": "0", "MLX_IBV_DEVICES": str(hosts)}) == ("jaccl", 3)
    assert launch_of({"OMPI_COMM_WORLD_SIZE": "4"}) == launch_of({"PMI_SIZE": "4"}) == ("mpi", 4)
    hosts.write_text("")  # mlx.launch -n 1
    assert launch_of({"MLX_RANK": "0", "MLX_HOSTFILE": str(hosts)}) == ("ring", 1)


TALK = """
import math, sys
import mlx.core as mx, numpy as np
from mlxsched.training.workers import world as module
from mlxsched.training.workers.launch import connect

module._BUCKET = 1000
world = connect()
rank, size = world.rank, world.size
orders = [{"do": "rest"}, {"do": "prepare", "text": "long " * 1000}, {"rate": 1 / 3, "big": 2**53}, {"x": "y" * 500}]
for order in orders:
    if rank == 0:
        world.tell(order)
    else:
        assert world.told() == order
table = world.gather([rank, math.pi * (rank + 1), math.nan if rank else math.inf])
expected = [[r, math.pi * (r + 1), math.nan if r else math.inf] for r in range(size)]
np.testing.assert_array_equal(table, expected)
shapes = [(), (3, 5), (1200,), (700,), (2, 200), (1,)]
tensors = [mx.full(shape, float(10**rank)) for shape in shapes]
for shape, summed in zip(shapes, world.sum(tensors)):
    assert summed.shape == shape and mx.all(summed == float("1" * size)).item()
key = mx.random.key(7)
for made in (mx.random.normal((5, 3), key=key), mx.array(-0.0), mx.array([math.nan]), mx.array(3, mx.uint64), key):
    for value in (made, made.astype(mx.bfloat16)):
        mine = value if rank == 0 else mx.zeros_like(value)
        copied = world.copy(mine)
        assert copied.shape == value.shape and copied.dtype == value.dtype
        assert bytes(memoryview(copied.reshape(-1).view(mx.uint8))) == bytes(memoryview(value.reshape(-1).view(mx.uint8)))
if rank == 0:  # an order in the middle of an update would be read as a part of the sums
    world.busy = True
    try:
        world.tell({"do": "end"})
    except module.WorkersLost:
        print("refused")
print("said", rank)
"""


@pytest.mark.parametrize("count", [2, 3])
def test_what_workers_say_arrives_to_the_bit(workers, count):
    for rank, process in enumerate(workers.start(count, "-c", TALK)):
        assert ends(process) == (0, f"said {rank}\n" if rank else "refused\nsaid 0\n")


def test_the_parts_of_an_evaluator_make_up_the_whole(session):
    made = session(val_batches=10)
    evaluator = make_evaluator(made, PLAIN)
    tree = made.loaded.model.trainable_parameters()
    whole = evaluator(tree)
    parts = [evaluator.part(worker, 3) for worker in range(3)]
    total = PartialLoss.sum_of(part.partial(tree, 0, part.n_batches) for part in parts)
    assert (total.targets, total.rows) == (whole.targets, whole.rows)
    assert total.loss / total.targets == pytest.approx(whole.loss, rel=1e-6)


def states(run: Path) -> list[dict[str, object]]:
    """What the checkpoints of a run hold besides tensors."""
    return [json.loads(path.read_text()) for path in sorted(run.glob("checkpoints/*/state.json"))]
