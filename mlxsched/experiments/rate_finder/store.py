"""Results of searches in the cache, keyed by everything that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlxsched.config.layers import LENGTHS
from mlxsched.errors import UserError
from mlxsched.experiments.rate_finder.result import Found
from mlxsched.model.load import model_fingerprint
from mlxsched.platform.caches import HEADER
from mlxsched.runs import atomic
from mlxsched.runs.json_file import read_object
from mlxsched.text import printable
from mlxsched.training.session import Session

FORMAT = 4  # increase it when results of searches change
_DIGESTS = {"rows": "the rows", "model": "the model"}
_LONGEST = 40  # characters of a value in a message
# Settings on which the best peak does not depend. The length of the run and the rows are part of the key by their
# resolved values.
_WITHOUT = [
    "description",
    "model",
    "data",
    "hf_dataset",
    "text_feature",
    "chat_feature",
    "prompt_feature",
    "completion_feature",
    "join_turns",
    "train",
    "learning_rate",
    *LENGTHS,
    "max_time",
    "test",
    "test_batches",
    "val_batches",
    "steps_per_eval",
    "steps_per_report",
    "patience",
    "average",
    "average_every",
    "report_to",
    "project_name",
    "run_dir",
    "name",
    "adapter_path",
    "save_every",
    "save_minutes",
    "keep_last",
    "fast",
    "without",
    "tune",
    "packing",
    "share_prompts",
    "prefix_cache",
    "memory",
    "cache_limit",
    "wired_limit",
    "clear_cache_threshold",
    "keep_awake",
    "pause_below",
    "max_bad_updates",
    "on_divergence",
    "micro_batch_tokens",
    "grad_checkpoint",
    "checkpoint_every",
]


class Store:
    """The stored result of one planned run, under ``rates/`` in a cache folder."""

    def __init__(self, cache: Path, session: Session) -> None:
        self._session = session
        self.path = cache / "rates" / _key(session)

    def load(self) -> Found | None:
        """The stored result; None if there is none, if it is damaged, or without a suggestion, as once stored."""
        with suppress(UserError, KeyError, TypeError, ValueError):
            stored = read_object(self.path / HEADER)["found"]
            found = Found.from_dict(stored) if isinstance(stored, dict) else None
            return found if found and found.suggestion is not None else None
        return None

    def save(self, found: Found) -> None:
        """Store ``found`` in place of an earlier result, unless that is better.

        A result without a suggestion is not stored: another search may find one, without --again.
        """
        earlier = self.load()
        if found.suggestion is None or (earlier and earlier.conclusive and not found.conclusive):
            return
        with atomic.storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        facts = _facts(self._session)
        header = {
            "format": FORMAT,
            "model": self._session.loaded.name,
            "facts": facts,
            "found": found.to_dict(),
        }
        atomic.write_json(self.path / HEADER, header)

    def differences(self) -> list[str]:
        """How this run differs from the most similar stored search, as clauses; empty if there is none."""
        mine, found = _flat(_facts(self._session)), []
        for header in self.path.parent.glob(f"*/{HEADER}"):
            with suppress(UserError):
                theirs = _flat(read_object(header).get("facts"))
                if theirs.get("format") == FORMAT:
                    found.append(_differing(theirs, mine))
        return min(found, key=len, default=[])


def _differing(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    return [
        _DIGESTS.get(key) or f"{key} ({_shown(theirs.get(key))} there, {_shown(mine.get(key))} here)"
        for key in {**mine, **theirs}
        if mine.get(key) != theirs.get(key)
    ]


def _flat(facts: object) -> dict[str, Any]:
    """The facts of a search as a flat dictionary, including settings and their blocks; empty for anything else."""
    if not isinstance(facts, dict):
        return {}
    found: dict[str, Any] = {}
    for key, value in facts.items():
        found |= _flat(value) if isinstance(value, dict) else {key: value}
    return found


def _shown(value: object) -> str:
    return "-" if value is None else printable(str(value), _LONGEST)


def _key(session: Session) -> str:
    return hashlib.sha256(json.dumps(_facts(session), sort_keys=True).encode()).hexdigest()[:32]


def _facts(session: Session) -> dict[str, Any]:
    """Everything that a result depends on."""
    config, dataset = session.config.to_dict(), session.dataset
    return {
        "format": FORMAT,
        "settings": {key: value for key, value in config.items() if key not in _WITHOUT},
        "model": model_fingerprint(session.loaded.path) or session.loaded.name,
        "rows": [rows.digest() for rows in (dataset.train, dataset.valid) if rows],
        "updates": session.plan.updates,
    }
