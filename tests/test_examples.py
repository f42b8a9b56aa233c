"""Every example runs, on the bundled model, and shows what it promises."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def module(name: str):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_every_example_is_run_here():
    text = Path(__file__).read_text()
    assert all(path.stem in text for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb"))


def test_own_loop():
    out = subprocess.check_output([sys.executable, EXAMPLES / "own_loop.py"], text=True)
    losses = [float(line.split()[-1]) for line in out.splitlines()]
    rates = [float(line.split()[3]) for line in out.splitlines()]
    assert losses[-1] < losses[0] / 5
    assert rates[0] == 0 and max(rates) > 9e-3 and rates[-1] < 1e-4  # the rate moves inside the compiled step


@pytest.mark.slow
def test_mlx_lm_trainer_reaches_our_trainers_loss(tmp_path):
    """mlx-lm's loop with our pieces, and our trainer with the same settings, evaluated by the same code."""
    example, updates = module("mlx_lm_trainer"), 30
    theirs = example.main(updates, tmp_path / "theirs")
    run = train(tmp_path / "ours", updates)
    ours = evaluate(example, run / "adapters")
    assert abs(theirs - ours) < 0.15 * ours
    assert theirs < 0.8 * evaluate(example, None)
    records = [json.loads(line) for line in (tmp_path / "theirs" / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(record["loss"]) and record["lr"] <= 1e-3 for record in records)


def train(path: Path, updates: int) -> Path:
    from mlxsched.config import load_config
    from mlxsched.training.run import create_run, execute
    from mlxsched.training.session import prepare

    flags = {
        "iters": updates,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "warmup": 0.1,
        "val_batches": 1,
        "max_grad_norm": 0,
    }
    flags |= {"lora_parameters.rank": 16, "optimizer": "adamw", "steps_per_eval": updates}
    loaded = load_config(flags=flags)
    session = prepare(loaded.config, loaded.origins)
    execute(session, create_run(session, path), lambda event: None)
    return path


def evaluate(example, adapter: Path | None) -> float:
    """The validation loss of the example, for an adapter or the model alone."""
    from types import SimpleNamespace

    model, tokenizer = example.load(str(example.model_path("tiny")), adapter_path=adapter and str(adapter))
    settings = SimpleNamespace(mask_prompt=True)
    _, valid, _ = example.load_local_dataset(Path(example.data_path("excel")), tokenizer, settings)
    batches = {"loss": example.loss, "iterate_batches": example.iterate_batches}
    return example.evaluate(model, example.CacheDataset(valid), 8, 16, **batches)


def test_what_the_plain_loop_wastes():
    found = module("what_the_plain_loop_wastes").main(7)
    theirs, ours = found["mlx-lm"], found["mlxsched"]
    assert ours["rows left out"] == 0 < theirs["rows left out"]
    assert ours["padding of all targets"] == 0 < theirs["padding of all targets"]
    assert ours["padding of all tokens"] < theirs["padding of all tokens"]


def test_lr_find(tmp_path, capsys):
    short = {"iters": 12, "batch_size": 2, "num_layers": 1, "val_batches": 2}
    found, loss = module("lr_find").main(tmp_path, 60, **short)
    assert f"Suggestion {found.suggestion:.1e}" in capsys.readouterr().out
    assert found.low < found.suggestion < found.high and loss < found.test.losses[0]


def test_adapter_in_an_app(tmp_path):
    run = train(tmp_path / "run", 2)
    answer = module("adapter_in_an_app").answer(run, "Sum of A1 to A10")
    assert isinstance(answer, str) and answer


@pytest.mark.slow
def test_notebook(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))
    before, after = (float(word) for word in printed.partition("loss ")[2].partition(",")[0].split(" -> "))
    assert after < before
