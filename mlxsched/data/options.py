"""What a user may decide about the data; part of what a tokenized data set is known by."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

SPLITS = ("train", "valid", "test")
DEFAULT_MAX_SEQ_LENGTH = 2048  # mlx-lm's


@dataclass(frozen=True)
class Features:
    """The keys of a record that hold the text; mlx-lm's names and defaults."""

    text: str = "text"
    chat: str = "messages"
    prompt: str = "prompt"
    completion: str = "completion"


@dataclass(frozen=True)
class DataOptions:
    """How rows are read and tokenized.

    ``mask_prompt``: score only answers (every assistant turn of a chat, every completion), not all tokens.
    ``max_seq_length``: tokens of a row beyond it are cut off.
    ``skip_bad_rows``: leave out rows that cannot be used, instead of refusing the data set.
    ``seed``, ``valid_fraction``, ``test_fraction``, ``max_held_out``: how a single file is split.
    ``need``: the splits without which the data set is refused.  ``cache_dir``: where tokenized rows are kept
    between runs; None keeps them in memory.  ``trust_remote_code``: let a data set's own script run.
    """

    mask_prompt: bool = True
    max_seq_length: int = DEFAULT_MAX_SEQ_LENGTH
    skip_bad_rows: bool = False
    seed: int = 0
    features: Features = field(default_factory=Features)
    valid_fraction: float = 0.1
    test_fraction: float = 0.1
    max_held_out: int = 1000
    need: tuple[str, ...] = ("train",)
    cache_dir: Path | None = None
    trust_remote_code: bool = False
