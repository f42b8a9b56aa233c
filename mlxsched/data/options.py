"""How rows are read and tokenized; what decides the tokens is part of the cache key of a data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlxsched.config.schema import RunConfig

SPLITS = ("train", "valid", "test")
DEFAULT_MAX_SEQ_LENGTH = 2048  # mlx-lm's


@dataclass(frozen=True)
class Features:
    """The keys of a record that hold the text; mlx-lm's names and defaults."""

    text: str = "text"
    chat: str = "messages"
    prompt: str = "prompt"
    completion: str = "completion"

    @property
    def flags(self) -> str:
        """The flags that give other keys than the usual ones; empty without any."""
        usual = asdict(Features())
        return " ".join(f"--{name}-feature {key}" for name, key in asdict(self).items() if key != usual[name])


@dataclass(frozen=True)
class DataOptions:
    """How rows are read and tokenized.

    Args:
        mask_prompt: score only answers (every assistant turn of a chat, every completion) instead of all tokens.
        max_seq_length: tokens of a row beyond it are cut off.
        max_positions: positions that the model has, if it has a table of them (`model.load.max_positions`).
        join_turns: join training rows with those that they are the beginning of (`joining`); after the cache.
        skip_bad_rows: leave out rows that can't be used instead of refusing the data set.
        seed: decides how a single file is split.
        features: the keys of a record.
        valid_fraction: share of a single file for validation.
        test_fraction: share of a single file for the test.
        max_held_out: rows at most of each of these two.
        need: splits without which the data set is refused.
        cache_dir: where tokenized rows are kept between runs; None keeps them in memory.
        trust_remote_code: allow a data set on the hub to run its own script.
    """

    mask_prompt: bool = True
    max_seq_length: int = DEFAULT_MAX_SEQ_LENGTH
    max_positions: int | None = None
    join_turns: bool = False
    skip_bad_rows: bool = False
    seed: int = 0
    features: Features = field(default_factory=Features)
    valid_fraction: float = 0.1
    test_fraction: float = 0.1
    max_held_out: int = 1000
    need: tuple[str, ...] = ("train",)
    cache_dir: Path | None = None
    trust_remote_code: bool = False

    @classmethod
    def of_run(
        cls, config: RunConfig, *, max_positions: int | None = None, cache_dir: Path | None = None
    ) -> DataOptions:
        """The options of a run: what ``train`` tokenizes, ``data check`` and ``data show`` tokenize too."""
        return cls(
            mask_prompt=config.mask_prompt,
            max_seq_length=config.max_seq_length,
            max_positions=max_positions,
            join_turns=config.join_turns,
            skip_bad_rows=config.skip_bad_rows,
            seed=config.seed,
            features=Features(
                config.text_feature, config.chat_feature, config.prompt_feature, config.completion_feature
            ),
            cache_dir=cache_dir,
            trust_remote_code=config.trust_remote_code,
        )

    @property
    def max_tokens(self) -> int:
        """Tokens of a row at most. The last token is only predicted, so n positions hold n + 1 tokens."""
        if self.max_positions is None:
            return self.max_seq_length
        return min(self.max_seq_length, self.max_positions + 1)

    @property
    def limit(self) -> str:
        """What sets `max_tokens`, for messages."""
        if self.max_tokens < self.max_seq_length:
            return f"the {self.max_positions} positions of the model"
        return f"--max-seq-length {self.max_seq_length}"

    @property
    def limit_fix(self) -> str:
        """What to do about rows beyond the limit, as the beginning of a sentence."""
        if self.max_tokens < self.max_seq_length:
            return "Use a model with more positions"
        return "Raise --max-seq-length"

    def bad_rows_fix(self, *, all_bad: bool) -> str:
        """What to do about rows that can't be used, as a sentence without its full stop."""
        if all_bad and self.features.flags:
            return f"Fix them, or correct {self.features.flags} if the rows have other keys"
        return (
            "Fix them"
            if all_bad or self.skip_bad_rows
            else "Fix them, or leave them out with --skip-bad-rows"
        )
