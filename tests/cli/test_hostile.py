"""Files of a stranger: whatever they hold, a command ends with a clear line, and no control character is printed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlxsched.cli.main import main
from mlxsched.runs.directory import RunDirectory

EXAMPLES = max(int(os.environ.get("MLXSCHED_FUZZ", "0")) // 50, 8)  # each is a whole resume, about a second
SHORT = [
    "--iters",
    "2",
    "--batch-size",
    "2",
    "--val-batches",
    "1",
    "--no-test",
    "--plain",
    "--num-layers",
    "1",
]
EVIL = "x\x1b]0;owned\x07\x1b[2J\x9b31m\x85\x00y"
CONTROLS = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))} - {"\n", "\t"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "run"
    assert main(["train", *SHORT, "--run-dir", str(path), "--save-every", "1"]) == 0
    return path


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> Path:
    """A copy of a finished run that may be damaged; it counts as stopped, so that it can be resumed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLXSCHED_CACHE", str(tmp_path / "cache"))
    path = shutil.copytree(finished, tmp_path / "run")
    RunDirectory.open(path).update_info(status="stopped")
    return path


def ends_well(capfd, *arguments: str) -> tuple[int, str]:
    """Run a command; check that it ends as promised; return the exit code and everything printed."""
    capfd.readouterr()
    code = main(list(arguments))
    streams = capfd.readouterr()
    text = streams.out + streams.err
    assert code in (0, 1, 2, 3), text
    assert not set(text) & CONTROLS, repr(text)
    assert "bug in mlxsched" not in text and "Traceback" not in text, text
    return code, text


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


COMMANDS = [["resume", "--force", "--plain"], ["plot"], ["plot", "--json"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("key", ["model", "data", "schedule", "optimizer", "name"])
def test_escape_sequences_in_a_config_are_not_printed(run, capfd, command, key):
    info = json.loads((run / "run.json").read_text())
    edit(run / "run.json", config={**info["config"], key: EVIL}, paths={}, message=EVIL)
    ends_well(capfd, command[0], str(run), *command[1:])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_escape_sequences_in_a_name_and_in_records_are_not_printed(run, capfd, command):
    evil = run.with_name("a\x1b[2J\x9bb")
    run.rename(evil)
    with open(evil / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"kind": "event", "update": 2, "code": EVIL, "message": EVIL}) + "\n")
    edit(evil / "run.json", origins={"model": EVIL}, plan={EVIL: EVIL}, versions={EVIL: EVIL})
    ends_well(capfd, command[0], str(evil), *command[1:])


@pytest.mark.parametrize("command", [["plan"], ["plan", "--json"], ["train", "--dry-run"]], ids=" ".join)
@pytest.mark.parametrize("key", ["model", "data", "schedule", "lr_schedule", "optimizer", "preset", EVIL])
def test_escape_sequences_in_a_config_file_are_not_printed(tmp_path, monkeypatch, capfd, command, key):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{EVIL[1:6]}.yaml").write_text(yaml.safe_dump({key: EVIL}))
    ends_well(capfd, *command, "-c", str(tmp_path / f"{EVIL[1:6]}.yaml"))


@pytest.mark.parametrize("command", [["data", "check"], ["plan", "--data"]], ids=" ".join)
def test_escape_sequences_in_data_are_not_printed(tmp_path, monkeypatch, capfd, command):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "d\x1b[2J\x9bd"
    folder.mkdir()
    rows = [
        {EVIL: EVIL},
        {"prompt": EVIL, "completion": EVIL},
        {"messages": [{"role": EVIL, "content": EVIL}]},
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + EVIL + "\n")
    ends_well(capfd, *command, str(folder))
    ends_well(capfd, *command, str(folder), "--json")


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_sparse_file(path: Path) -> None:
    with open(path, "wb") as file:
        os.truncate(file.fileno(), 6 * 10**9)


DAMAGES = [replace_by_pipe, replace_by_link, replace_by_folder, replace_by_sparse_file]
RESUME, EVAL = ["resume", "--plain"], ["eval", "--limit", "1", "--no-generate"]
READERS = {
    "run.json": ["plot"],
    "metrics.jsonl": ["plot"],
    "checkpoints/*/state.json": RESUME,
    "checkpoints/*/manifest.json": RESUME,
    "checkpoints/*/adapters.safetensors": RESUME,
    "adapters/adapters.safetensors": EVAL,
    "adapters/adapter_config.json": EVAL,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_special_file_neither_hangs_nor_fills_the_memory(run, capfd, name, damage):
    if damage is replace_by_sparse_file and name == "adapters/adapters.safetensors":
        pytest.skip("a checksum over 6 GB takes a while, and ends")
    for path in run.glob(name):
        damage(path)
    command, *flags = READERS[name]
    ends_well(capfd, command, str(run), *flags)


VALUES = st.sampled_from(
    [None, True, -1, 0, 1.5, 10**30, 10**400, float("inf"), "", "x", EVIL, "\ud800", [], [[]], {}, {"a": 1}]
)


def resign(checkpoint: Path) -> None:
    """Let the manifest agree with the files: a stranger can do that too."""
    from mlxsched.runs.checkpoints import MANIFEST, _measured

    manifest = json.loads((checkpoint / MANIFEST).read_text())
    manifest["files"] = {name: _measured(checkpoint / name) for name in manifest["files"]}
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["state.json", "run.json", "manifest.json"]), st.integers(0, 100), VALUES)
def test_any_value_in_any_json_file_of_a_run_ends_a_resume_well(
    finished, tmp_path_factory, capfd, file, key, value
):
    path = shutil.copytree(finished, tmp_path_factory.mktemp("fuzzed") / "run")
    RunDirectory.open(path).update_info(status="stopped")
    for target in [path / file] if file == "run.json" else path.glob(f"checkpoints/*/{file}"):
        keys = list(json.loads(target.read_text()))
        edit(target, **{keys[key % len(keys)]: value})
        if file == "state.json":
            resign(target.parent)
    ends_well(capfd, "resume", str(path), "--force", "--plain")


def test_a_checkpoint_whose_weights_are_not_numbers_is_not_resumed(run, capfd):
    import mlx.core as mx

    for checkpoint in sorted(run.glob("checkpoints/*")):
        path = checkpoint / "adapters.safetensors"
        nothing = {
            key: mx.full(value.shape, mx.nan, value.dtype) for key, value in mx.load(str(path)).items()
        }
        mx.save_safetensors(str(path), nothing)
        resign(checkpoint)
    code, text = ends_well(capfd, "resume", str(run), "--plain")
    assert code != 0 or "not finite" in text
    assert not any(
        bool(mx.isnan(value).any()) for value in mx.load(str(run / "adapters/adapters.safetensors")).values()
    )
