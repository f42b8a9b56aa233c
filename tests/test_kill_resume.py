"""A training that is killed and resumed ends like one that was not, and no file of the user's is lost.

``MLXSCHED_KILLS=16 pytest tests/test_kill_resume.py`` does what CI does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).parent / "harness" / "kill_resume.py"
KILLS = int(os.environ.get("MLXSCHED_KILLS", "2"))
TRAIN = [
    "--iters",
    "40",
    "--batch-size",
    "4",
    "--save-every",
    "4",
    "--steps-per-eval",
    "10",
    "--val-batches",
    "2",
]


@pytest.fixture(scope="module")
def harness():
    spec = importlib.util.spec_from_file_location("kill_resume", HARNESS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_run(
    path: Path, *, adapter: bytes = b"a", losses: tuple[float, ...] = (2.0, 1.0), seconds: float = 1.0
) -> Path:
    for folder in ("adapters", "checkpoints/000002"):
        (path / folder).mkdir(parents=True)
        (path / folder / "adapters.safetensors").write_bytes(adapter)
    records = [
        {"kind": "train", "update": n, "loss": loss, "seconds": seconds} for n, loss in enumerate(losses)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_the_harness_sees_what_differs_and_leaves_out_what_is_measured(harness, tmp_path):
    reference = make_run(tmp_path / "reference")
    harness.compare(reference, make_run(tmp_path / "same", seconds=7.0))
    for name, change in {
        "bytes": {"adapter": b"b"},
        "loss": {"losses": (2.0, 1.5)},
        "short": {"losses": (2.0,)},
        "long": {"losses": (2.0, 1.0, 1.0)},
    }.items():
        with pytest.raises(harness.Broken, match=name):
            harness.compare(reference, make_run(tmp_path / name, **change))
    lacking = make_run(tmp_path / "lacking")
    (lacking / "adapters" / "adapters.safetensors").unlink()
    with pytest.raises(harness.Broken, match="lacking holds"):
        harness.compare(reference, lacking)


def test_the_harness_sees_a_lost_file_of_the_users(harness, tmp_path):
    precious = harness.Precious()
    precious.put(tmp_path, tmp_path / "nowhere")
    precious.check()
    (tmp_path / harness.PRECIOUS).write_text("changed")
    with pytest.raises(harness.Broken, match="gone or changed"):
        precious.check()
    (tmp_path / harness.PRECIOUS).unlink()
    with pytest.raises(harness.Broken, match="gone or changed"):
        precious.check()


@pytest.mark.parametrize("then", ["", "extend --steps +20", "cooldown --steps 15"])
def test_killed_and_resumed_is_bit_identical_to_uninterrupted(tmp_path, then):
    """Also where a finished run is made longer: from before its cooldown, and with a cooldown."""
    train = [*TRAIN, "--schedule", "wsd"] if then.startswith("extend") else TRAIN
    if then.startswith("cooldown"):
        train = [*TRAIN, "--schedule", "constant"]
    kills = max(KILLS // 25, 2) if then else KILLS  # these take five times as long
    command = [sys.executable, str(HARNESS), "--kills", str(kills), "--work", str(tmp_path), "--then", then]
    done = subprocess.run([*command, "--", *train], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kills"] == kills
