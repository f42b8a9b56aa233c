"""Find the source that a user named."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlxsched.bundled import DATA, data_path
from mlxsched.data.options import SPLITS, DataOptions
from mlxsched.data.problems import harmless
from mlxsched.data.record import Source
from mlxsched.data.sources.files import SUFFIXES, FilesSource, SplitFileSource
from mlxsched.data.sources.hub import HubSource
from mlxsched.errors import DataError
from mlxsched.text import closest


def open_source(
    source: str | Mapping[str, Any] | Sequence[Mapping[str, Any]], options: DataOptions
) -> Source:
    """The source for a bundled name, a directory, a file, a name on the hub, or mlx-lm's ``hf_dataset`` block(s).

    Raises:
        DataError: there is nothing of that name.
    """
    if not isinstance(source, str):
        blocks = [source] if isinstance(source, Mapping) else list(source)
        return HubSource.of_blocks(blocks, options)
    if source in DATA:
        return _directory(data_path(source), options, name=source)
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return _directory(path, options, name=source)
        if path.is_file():
            return _single(path, options)
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL byte
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{harmless(source, 200)!r} is not a usable path: {reason}.") from None
    # Without the datasets library "a/b" is more likely a mistyped path if "a" is a directory here.
    if _is_path(source) or (find_spec("datasets") is None and path.parent.is_dir()):
        raise DataError(f"There is no file or directory {harmless(source, 200)!r}.{_advice(source, path)}")
    return HubSource.of_name(source, options)


def is_one_file(source: object) -> bool:
    """Whether ``source`` is a file that is split by a hash with the seed."""
    return isinstance(source, str) and source not in DATA and os.path.isfile(os.path.expanduser(source))


def _is_path(source: str) -> bool:
    return (
        source.startswith((".", "/", "~"))
        or source.endswith((*SUFFIXES, ".json", "/"))
        or source.count("/") > 1
    )


def _advice(source: str, path: Path) -> str:
    """A similar name that does exist, and what it takes to load from the hub."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        names = []
    # Compared without suffixes, which would make every other .jsonl file similar.
    by_stem = {Path(name).stem: name for name in (names if "/" in source else [*DATA, *names])}
    stem = closest(path.stem, list(by_stem))
    near = by_stem[stem] if stem else None
    advice = f" Did you mean {harmless(str(path.parent / near), 200)!r}?" if near else ""
    if "/" not in source:
        advice += f" Bundled: {', '.join(DATA)}."
    elif not _is_path(source):
        advice += ' If it is a data set on Hugging Face: pip install "datasets"'
    return advice


def _directory(path: Path, options: DataOptions, name: str) -> Source:
    files = {}
    for split in SPLITS:
        found = [path / f"{split}{suffix}" for suffix in SUFFIXES if (path / f"{split}{suffix}").is_file()]
        if found:
            files[split] = found[0]
    for split in options.need or (SPLITS[0],) * (not files):
        if split not in files:
            raise DataError(f"{harmless(name, 200)} has no {split}.jsonl. {_listing(path)}")
    return FilesSource(name, files, options)


def _listing(path: Path) -> str:
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        return f"It can't be listed: {error.strerror}."
    if not names:
        return "The directory is empty."
    shown = ", ".join(harmless(name, 40) for name in names[:10]) + (", ..." if len(names) > 10 else "")
    rows = [name for name in names if name.endswith(SUFFIXES)]
    if len(rows) == 1:
        file = harmless(str(path / rows[0]), 200)
        return f"It holds {shown}. Pass the file itself to have it split: --data {file}"
    return f"It holds {shown}. Name the files train.jsonl, and (optional) valid.jsonl and test.jsonl."


def _single(path: Path, options: DataOptions) -> Source:
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{harmless(str(path), 200)} is neither .jsonl nor .csv. Convert it to one of these.")
    return SplitFileSource(path, options)
