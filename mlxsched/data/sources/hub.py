"""Rows from the Hugging Face hub, through its ``datasets`` library, which is imported only when needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlxsched.bundled import DATA
from mlxsched.data.options import SPLITS, DataOptions, Features
from mlxsched.data.problems import harmless
from mlxsched.data.record import Record
from mlxsched.errors import DataError

_KEYS = {
    "path": str,
    "train_split": str,
    "valid_split": str,
    "test_split": str,
    "prompt_feature": str,
    "completion_feature": str,
    "chat_feature": str,
    "text_feature": str,
    "config": Mapping,
    "mask_prompt": bool,
}


@dataclass(frozen=True)
class _Block:
    """One data set on the hub. ``splits`` maps our splits to expressions such as ``train[:80%]``; None takes its own."""

    path: str
    splits: Mapping[str, str] | None
    features: Features
    config: Mapping[str, Any]


class HubSource:
    """One or more data sets on the hub, concatenated."""

    def __init__(self, name: str, blocks: Sequence[_Block], options: DataOptions) -> None:
        self.name = name
        self.notes: list[str] = []
        self._blocks = blocks
        self._options = options
        self._loaded: list[tuple[_Block, dict[str, Any]]] | None = None

    @classmethod
    def of_name(cls, name: str, options: DataOptions) -> HubSource:
        """The data set ``name`` with its own train, valid and test splits."""
        return cls(name, [_Block(name, None, options.features, {})], options)

    @classmethod
    def of_blocks(cls, blocks: Sequence[Mapping[str, Any]], options: DataOptions) -> HubSource:
        """mlx-lm's ``hf_dataset``: a dictionary or a list of them."""
        read = [_block(block, options) for block in blocks]
        if not read:
            raise DataError("hf_dataset is empty; it needs at least one block with a path.")
        return cls(", ".join(block.path for block in read), read, options)

    def identity(self) -> str | None:
        """Hash of the names and of the fingerprints that the library gives its data sets."""
        prints = [
            [block.path, split, getattr(rows, "_fingerprint", None), vars(block.features)]
            for block, splits in self._load()
            for split, rows in splits.items()
        ]
        if any(fingerprint is None for _, _, fingerprint, _ in prints):
            return None
        return hashlib.sha256(json.dumps(prints).encode()).hexdigest()

    def records(self) -> Iterator[Record]:
        """All rows; the file is ``name [split]`` and the line is the number of the row, from 1."""
        for split in SPLITS:
            for block, splits in self._load():
                for number, row in enumerate(splits.get(split, ()), 1):
                    file, excerpt = f"{block.path} [{split}]", str(row)[:200]
                    yield Record(split, file, number, _without_nulls(row), block.features, excerpt)

    def first_records(self) -> list[Record]:
        """None: they would have to be downloaded."""
        return []

    def share_read(self) -> float | None:
        """Unknown."""
        return None

    def _load(self) -> list[tuple[_Block, dict[str, Any]]]:
        if self._loaded is None:
            self._loaded = [(block, self._load_block(block)) for block in self._blocks]
        return self._loaded

    def _load_block(self, block: _Block) -> dict[str, Any]:
        datasets = _library(block.path)
        config = dict(block.config)
        # Only the command line may allow remote code, never the block of a config. datasets 4 has no such option.
        if self._options.trust_remote_code:
            config["trust_remote_code"] = True
        try:
            if block.splits is None:
                found = datasets.load_dataset(block.path, **config)
                return {split: found[split] for split in SPLITS if split in found}
            return {
                split: datasets.load_dataset(block.path, split=expression, **config)
                for split, expression in block.splits.items()
            }
        except Exception as error:  # noqa: BLE001 - loaders and the network raise anything
            what = f"{type(error).__name__}: {harmless(str(error), 300)}"
            raise DataError(
                f"The data set {harmless(block.path)!r} could not be loaded from Hugging Face ({what}). "
                "Check its name and the network, or give a local directory or file."
            ) from None


def _without_nulls(value: Any) -> Any:
    """A row without its nulls, at any depth.

    A table has every column in every row, and every field in every object of a column: a call ``{"city": "Paris"}``
    gets a null for each argument of all the other calls. Null means that the row does not have the key.
    """
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_without_nulls(item) for item in value]
    return value


def _library(name: str) -> Any:
    try:
        import datasets  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        known = ", ".join(DATA)
        raise DataError(
            f"{harmless(name)!r} is neither bundled ({known}) nor a file or directory here. "
            'To load it from Hugging Face: pip install "datasets"'
        ) from None
    return datasets


def _block(block: Mapping[str, Any], options: DataOptions) -> _Block:
    for key, value in block.items():
        wanted = _KEYS.get(key)
        if wanted is None:
            raise DataError(f"hf_dataset has no key {harmless(str(key))!r}; it may have {', '.join(_KEYS)}.")
        if not isinstance(value, wanted):
            raise DataError(
                f"hf_dataset: {key} must be a {wanted.__name__.lower()}; got {harmless(repr(value))}."
            )
    if "path" not in block:
        raise DataError("hf_dataset needs a path: the name of a data set on Hugging Face.")
    names = {name: block[f"{name}_feature"] for name in vars(options.features) if f"{name}_feature" in block}
    splits = {  # mlx-lm's defaults
        "train": block.get("train_split", "train[:80%]"),
        "valid": block.get("valid_split", "train[-10%:]"),
    }
    if "test_split" in block:
        splits["test"] = block["test_split"]
    config = dict(block.get("config", {}))
    config.pop("trust_remote_code", None)
    return _Block(block["path"], splits, replace(options.features, **names), config)
