"""Choices in the cache, keyed by everything that they depend on."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from mlxsched.data.batching.grid import Shape
from mlxsched.errors import UserError
from mlxsched.model.fast.forward_path import ForwardPath
from mlxsched.platform.blas import threads
from mlxsched.platform.caches import HEADER
from mlxsched.platform.machine import describe
from mlxsched.runs import atomic
from mlxsched.runs.json_file import read_object
from mlxsched.training.session import Session

FORMAT = 2  # increase it when the candidates change
KIND = "tuning"  # the folder of the cache


class TuningStore:
    """The stored choice for one kind of run on this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, cache: Path, session: Session, path: ForwardPath, shapes: list[Shape]) -> TuningStore:
        """The entry for micro-batches of ``shapes`` with ``path``."""
        plan, config = session.plan, session.config
        facts = {
            "format": FORMAT,
            "machine": asdict(describe()),
            "threads": threads(),
            "model": session.loaded.config,
            "trained": [config.fine_tune_type, session.trained_layers, plan.trainable],
            "shapes": sorted(set(shapes)),
            "targets": round(plan.targets / plan.tokens, 1),
            "path": path.describe(),
            "loss": [config.label_smoothing, config.z_loss],
            "memory": [session.memory.limit, session.memory.cache],  # a winner had to fit
            "packing": [config.packing, session.batching.packing is not None],
        }
        name = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]
        return cls(cache / KIND / name)

    def load(self) -> dict[str, object] | None:
        """The stored record; None if there is none, or if it is damaged."""
        with suppress(UserError):
            tuning = read_object(self.path / HEADER).get("tuning")
            return tuning if isinstance(tuning, dict) else None
        return None

    def save(self, model: str, record: dict[str, object]) -> None:
        """Store ``record``. If the cache cannot be written, the next run times the candidates again."""
        with suppress(atomic.StorageError):
            with atomic.storage_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            atomic.write_json(self.path / HEADER, {"format": FORMAT, "model": model, "tuning": record})
