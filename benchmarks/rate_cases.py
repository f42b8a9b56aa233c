"""The cases that `mlxsched lr-find` is judged by, and what a run of each comes to at any peak rate.

Four small models of different shapes (the bundled one and three that are pretrained here in a minute or two), two data
sets, ranks from 4 to 64, several scales, LoRA+, AdamW with and without bias correction, Adam and SGD, two run lengths.
`rate_finder.py` has the grid and the table.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlxsched.platform.blas import preload

preload()

from labelled_runs import orders  # noqa: E402  after the BLAS

from mlxsched.bundled import data_path  # noqa: E402
from mlxsched.config import LoadedConfig, load_config  # noqa: E402
from mlxsched.planning.schedule import resolve_schedule  # noqa: E402
from mlxsched.runs import atomic  # noqa: E402
from mlxsched.training.acceleration import accelerate  # noqa: E402
from mlxsched.training.assembly import make_engine, make_evaluator, make_loader, make_pace  # noqa: E402
from mlxsched.training.session import prepare  # noqa: E402

SHORT, LONG = 50, 125  # updates
SHAPES = {  # hidden size, layers, attention heads, updates of pretraining
    "second": (96, 6, 3, 700),
    "slim": (64, 4, 2, 400),
    "short": (80, 2, 2, 300),
}
LOST = 50.0  # stands for a loss that is not finite


@dataclass(frozen=True)
class Case:
    """A run whose best peak is looked for: everything but the peak."""

    model: str
    data: str
    updates: int
    rank: int
    scale: float
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A unique name, such as ``tiny-excel-120-r16-s20``."""
        values = {**self.more, "keys": "qv"} if "lora_parameters.keys" in self.more else self.more
        more = "".join(f"-{key}={value}" for key, value in values.items() if "." not in key)
        return f"{self.model}-{self.data}-{self.updates}-r{self.rank}-s{self.scale:g}{more}"

    def config(self, folder: Path, **flags: Any) -> LoadedConfig:
        """The settings of the run; models and data are below ``folder``."""
        model = self.model if self.model in ("tiny", "smollm2") else str(folder / "models" / self.model)
        fixed = {
            "model": model,
            "data": str(folder / "data" / self.data),
            "iters": self.updates,
            "lora_parameters.rank": self.rank,
            "lora_parameters.scale": self.scale,
        }
        return load_config(flags={**fixed, "batch_size": 4, **self.more, **flags})


_PLUS, _NO_CORRECTION = "lora_plus_ratio", {"bias_correction": False}
_FEW = {"lora_parameters.keys": ["self_attn.q_proj", "self_attn.v_proj"]}
_UNORDERED = (
    Case("tiny", "excel", SHORT, 16, 20),
    Case("tiny", "excel", LONG, 8, 20, _FEW),
    Case("tiny", "orders", SHORT, 64, 20, _FEW),
    Case("tiny", "orders", LONG, 16, 10, {_PLUS: 8, **_FEW}),
    Case("tiny", "orders", SHORT, 32, 5, {"num_layers": 2, **_NO_CORRECTION}),
    Case("second", "excel", SHORT, 16, 20, _FEW),
    Case("second", "orders", LONG, 4, 40, {"num_layers": 2, **_NO_CORRECTION}),
    Case("second", "orders", SHORT, 32, 2, {"num_layers": 3}),
    Case("slim", "excel", SHORT, 16, 20, {"schedule": "wsd"}),
    Case("slim", "excel", LONG, 8, 10),
    Case("slim", "orders", SHORT, 8, 20),
    Case("slim", "orders", LONG, 32, 20, _FEW),
    Case("slim", "orders", SHORT, 16, 20, {_PLUS: 4, **_NO_CORRECTION, **_FEW}),
    Case("slim", "excel", LONG, 4, 20, {"optimizer": "adam", **_FEW}),
    Case("short", "excel", SHORT, 8, 20, {"schedule": "cosine"}),
    Case("short", "excel", LONG, 16, 20),
    Case("short", "excel", LONG, 64, 10, _FEW),
    Case("short", "excel", LONG, 16, 20, {"optimizer": "adam", **_NO_CORRECTION, **_FEW}),
    Case("short", "orders", LONG, 16, 5, _FEW),
    Case("short", "orders", SHORT, 64, 10),
    Case("short", "orders", LONG, 8, 20, {_PLUS: 16, **_FEW}),
    Case("short", "orders", SHORT, 16, 20, {"optimizer": "adam"}),
    Case("short", "orders", LONG, 4, 40, {"schedule": "wsd"}),
    Case("short", "orders", LONG, 16, 20, {"optimizer": "sgd", **_FEW}),
)

# Later ones, in pairs of an even and an odd case, so that no case changes its half.
_ADDED = (
    Case("short", "excel", SHORT, 16, 10, {"optimizer": "sgd", **_FEW}),
    Case("slim", "orders", SHORT, 16, 10, {"optimizer": "sgd", **_FEW}),
    Case("short", "orders", SHORT, 8, 20, _NO_CORRECTION),
    Case("short", "excel", SHORT, 16, 10, {**_NO_CORRECTION, **_FEW}),
    Case("short", "orders", LONG, 32, 20, {**_NO_CORRECTION, **_FEW}),
    Case("slim", "orders", SHORT, 8, 20, _NO_CORRECTION),
    Case("short", "orders", SHORT, 16, 40),
    Case("short", "orders", SHORT, 4, 10),
    Case("slim", "orders", SHORT, 4, 5),
    Case("short", "excel", SHORT, 32, 20, {"schedule": "cosine"}),
    Case("short", "excel", SHORT, 64, 5),
    Case("slim", "orders", SHORT, 64, 10, _FEW),
    Case("short", "orders", LONG, 16, 20, {"schedule": "wsd"}),
    Case("short", "orders", LONG, 8, 10, {_PLUS: 4}),
    Case("tiny", "orders", SHORT, 8, 20),
    Case("tiny", "excel", SHORT, 32, 10, _FEW),
)


# For evaluation only: first trained when all constants were final. Cheap models come first.
_FRESH = (
    Case("short", "orders", SHORT, 16, 10),
    Case("short", "excel", SHORT, 4, 40),
    Case("short", "orders", SHORT, 32, 20, {"schedule": "wsd"}),
    Case("short", "excel", LONG, 8, 5, _FEW),
    Case("short", "orders", SHORT, 8, 40, {"schedule": "constant"}),
    Case("short", "orders", LONG, 16, 20, _NO_CORRECTION),
    Case("short", "excel", SHORT, 16, 20, {"optimizer": "sgd", **_FEW}),
    Case("short", "orders", SHORT, 16, 20, {_PLUS: 8, **_FEW}),
    Case("slim", "orders", SHORT, 16, 10, {"schedule": "cosine"}),
    Case("slim", "excel", SHORT, 8, 20, _FEW),
    Case("slim", "orders", LONG, 8, 20, {"schedule": "wsd", **_FEW}),
    Case("slim", "excel", SHORT, 32, 10, {**_NO_CORRECTION, **_FEW}),
    Case("slim", "orders", SHORT, 32, 5, {"optimizer": "adam"}),
    Case("slim", "excel", LONG, 16, 20, {_PLUS: 4}),
    Case("second", "orders", SHORT, 8, 20),
    Case("second", "excel", SHORT, 32, 10, {"schedule": "cosine", **_FEW}),
    Case("second", "orders", SHORT, 64, 2, {"num_layers": 2}),
    Case("second", "excel", LONG, 4, 20, {"num_layers": 3, "schedule": "wsd"}),
    Case("tiny", "orders", SHORT, 16, 20, {"schedule": "wsd", **_FEW}),
    Case("tiny", "excel", SHORT, 16, 40, {"num_layers": 2, **_NO_CORRECTION}),
)


def even_cases() -> list[Case]:
    """The cases on which constants are chosen."""
    return _first_cases()[::2]


def odd_cases() -> list[Case]:
    """The cases that tested earlier versions; their results were known when later versions were made."""
    return _first_cases()[1::2]


def fresh_cases() -> list[Case]:
    """The held-out cases, whose results are reported."""
    return list(_FRESH)


def _first_cases() -> list[Case]:
    """The cases in an order in which the even and the odd ones are similar."""
    return [*random.Random(12).sample(_UNORDERED, len(_UNORDERED)), *_ADDED]


def prepare_folder(folder: Path) -> None:
    """Write the data sets, and pretrain the models that are not there yet."""
    excel = {split: _lines(data_path("excel") / f"{split}.jsonl") for split in ("train", "valid")}
    made = [json.dumps(_brief(row)) for row in orders(1264, random.Random(5))]
    for name, train, valid in (
        ("excel", excel["train"], excel["valid"][:64]),
        ("orders", made[:1200], made[1200:]),
    ):
        (folder / "data" / name).mkdir(parents=True, exist_ok=True)
        (folder / "data" / name / "train.jsonl").write_text("\n".join(train) + "\n")
        (folder / "data" / name / "valid.jsonl").write_text("\n".join(valid) + "\n")
    for name in SHAPES:
        if not (folder / "models" / name / "config.json").exists():
            subprocess.run([sys.executable, __file__, str(folder / "models" / name)], check=True)


def _brief(row: dict[str, str]) -> dict[str, str]:
    """The answer as plain words: JSON has three times the tokens, since the tokenizers here were not made for it."""
    return {**row, "completion": " ".join(str(value) for value in json.loads(row["completion"]).values())}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def pretrain(place: Path) -> None:
    """Pretrain the model that ``place`` is named after, with the script that made the bundled one."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
    import make_tiny_model as maker

    hidden, layers, heads, updates = SHAPES[place.name]
    maker.CONFIG |= {"hidden_size": hidden, "num_hidden_layers": layers, "head_dim": hidden // heads}
    maker.CONFIG |= {"num_attention_heads": heads, "num_key_value_heads": heads}
    maker.CONFIG["intermediate_size"] = hidden * 11 // 4
    place.parent.mkdir(parents=True, exist_ok=True)
    sys.argv = ["make_tiny_model", "--out", str(place), "--updates", str(updates)]
    maker.main()


class Trainings:
    """Runs of one case and one seed, which differ in their peaks and lengths only."""

    def __init__(self, case: Case, folder: Path, seed: int) -> None:
        self._loaded = case.config(folder, seed=seed)
        session = prepare(self._loaded.config, self._loaded.origins)
        with tempfile.TemporaryDirectory() as directory:
            paths = accelerate(session, Path(directory), lambda text: None)
        self._engine = make_engine(session, paths.training)
        self._load = make_loader(session, paths.training, make_pace(session))
        evaluator = make_evaluator(session, paths.validation)
        if evaluator is None:
            raise SystemExit(f"{case.data} has no validation rows")
        self._evaluator, self._start = evaluator, self._engine.snapshot()

    def loss(self, peak: float, updates: int) -> float:
        """The validation loss after a run of ``updates``, whose schedule has the same shape at any length."""
        config = self._loaded.config.model_copy(update={"learning_rate": peak})
        schedule = resolve_schedule(config, self._loaded.origins, updates).schedule
        self._engine.restore(self._start)
        for update in range(updates):
            self._engine.update(self._load(update), float(schedule(update))).wait()
        loss = self._engine.evaluate(self._evaluator).loss
        return loss if loss < LOST else LOST


class Kept:
    """Validation losses by case, length, peak and seed, in a JSON file that is saved after each."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / "losses.json"
        self._values: dict[str, float] = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._open: dict[tuple[str, int], Trainings] = {}

    def loss(self, case: Case, peak: float, updates: int, seed: int) -> float:
        """From the file, or trained now."""
        key = self._key(case, peak, updates, seed)
        if key not in self._values:
            self._values[key] = self._trainings(case, seed).loss(peak, updates)
            atomic.write_json(self._file, self._values)
        return self._values[key]

    def has(self, case: Case, peak: float, updates: int, seed: int) -> bool:
        """Whether this run was trained before."""
        return self._key(case, peak, updates, seed) in self._values

    @staticmethod
    def _key(case: Case, peak: float, updates: int, seed: int) -> str:
        return f"{case.name} {updates} {peak:.4g} {seed}"

    def mean(self, case: Case, peak: float, seeds: tuple[int, ...]) -> float:
        """The mean over ``seeds`` after the whole run."""
        return statistics.fmean(self.loss(case, peak, case.updates, seed) for seed in seeds)

    def _trainings(self, case: Case, seed: int) -> Trainings:
        key = (case.name, seed)
        if key not in self._open:
            if len(self._open) > 3:  # models and compiled steps take memory
                self._open.clear()
            self._open[key] = Trainings(case, self._folder, seed)
        return self._open[key]


if __name__ == "__main__":
    pretrain(Path(sys.argv[1]))
