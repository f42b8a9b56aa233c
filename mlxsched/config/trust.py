"""What a configuration file may not decide, because it may be a stranger's: to run code, or to write elsewhere.

Reading is allowed: a file names the model, the data and the adapter to start from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlxsched.config.layers import Layer, place
from mlxsched.text import printable

WRITTEN = ("adapter_path", "run_dir")
# Of `datasets.load_dataset`: what chooses the rows. The others write elsewhere, or send credentials.
LOADING = {"name", "data_dir", "data_files", "revision", "trust_remote_code"}


def untrusted(merged: Layer) -> Iterator[str]:
    """A problem for each value of a file that only the command line may give."""
    trust = merged.get("trust_remote_code")
    if trust and trust.is_from_own_file and trust.value is not False and trust.value is not None:
        yield (
            f"{place(('trust_remote_code',), merged)}: `trust_remote_code` is not taken from a file: it runs Python "
            "code that comes with the model. If you trust that code, give --trust-remote-code."
        )
    for key in WRITTEN:
        given = merged.get(key)
        if given and given.is_from_own_file and isinstance(given.value, str) and _is_elsewhere(given.value):
            flag, shown = key.replace("_", "-"), printable(given.value, 200)
            yield (
                f"{place((key,), merged)}: `{key}` {shown!r} is outside the current directory, and a config file may not "
                f"write there. If you want that, give --{flag} {shown}."
            )
    source = merged.get("hf_dataset")
    if source and source.is_from_own_file:
        for key in sorted(_loading_keys(source.value) - LOADING):
            yield (
                f"{place(('hf_dataset',), merged)}: `hf_dataset.config` may have {', '.join(sorted(LOADING))}; "
                f"got {printable(key)!r}. Remove it."
            )


def _is_elsewhere(value: str) -> bool:
    """Whether a path leaves the current folder; through a link, too, for an archive can hold links."""
    here = Path.cwd().resolve()
    try:
        return not (here / Path(value).expanduser()).resolve().is_relative_to(here)
    except (OSError, ValueError, RuntimeError):  # too long, a null character, no such user, a loop of links
        return True


def _loading_keys(source: Any) -> set[str]:
    blocks = source if isinstance(source, list) else [source]
    configs = [block.get("config") for block in blocks if isinstance(block, Mapping)]
    return {str(key) for config in configs if isinstance(config, Mapping) for key in config}
