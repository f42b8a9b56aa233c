"""What a comparison trains: variants of a configuration, each over a grid of peaks, with several seeds.

A comparison of schedules at a single peak says little, because each schedule has its own best peak: a constant rate wants a
lower one than a rate that decays to zero. Each variant is therefore trained over the whole grid, and compared at its
best peak.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlxsched.config.layers import LENGTHS
from mlxsched.config.schema import RunConfig
from mlxsched.errors import UsageError

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""The default peaks, relative to the learning rate of the configuration."""
MOST_TRIALS = 10_000
RATE_KEYS = ("schedule", "lr_schedule", "learning_rate", "warmup", "warmup_init", "end_lr")
"""Keys that change nothing but the rate of each update: their trials share a model, an engine and its traces."""
FIXED = {
    "learning_rate": "give --peaks",
    "seed": "give --seeds",
    **dict.fromkeys(
        [
            "model",
            "dequantize",
            "data",
            "hf_dataset",
            "text_feature",
            "chat_feature",
            "prompt_feature",
            "completion_feature",
            "mask_prompt",
            "max_seq_length",
            "join_turns",
            "skip_bad_rows",
        ],
        "a comparison keeps model and data the same",
    ),
    **dict.fromkeys((*LENGTHS, "max_time", "until_plateau", "patience"), "a comparison has one budget"),
    **dict.fromkeys(
        [
            "run_dir",
            "name",
            "adapter_path",
            "save_every",
            "save_minutes",
            "keep_last",
            "report_to",
            "project_name",
            "average",
            "average_every",
            "resume_adapter_file",
            "test",
            "test_batches",
            "trust_remote_code",
        ],
        "it does not change a trial",
    ),
}
"""Keys that can't be varied, and why."""
RUNG_SHARES = (0.25, 0.5)
SHORTEST_RUNG = 8


@dataclass(frozen=True)
class Variant:
    """A configuration whose best peak is searched for.

    Args:
        name: what it is called in tables and pictures.
        config: its settings; ``learning_rate`` and ``seed`` are replaced in each trial.
        origins: where each setting comes from.
        changes: the settings in which variants differ, by key.
    """

    name: str
    config: RunConfig
    origins: Mapping[str, str]
    changes: Mapping[str, Any]

    @property
    def setting(self) -> str:
        """What variants that differ in their rates alone have in common."""
        return repr(sorted((key, value) for key, value in self.changes.items() if key not in RATE_KEYS))


@dataclass(frozen=True)
class Cell:
    """One trial that is to be made: a variant at a peak, with a seed, for a number of updates."""

    variant: str
    peak: float
    seed: int
    updates: int


@dataclass(frozen=True)
class Trial:
    """A finished trial; the loss is None where it diverged."""

    cell: Cell
    loss: float | None
    seconds: float = 0.0

    @property
    def order(self) -> float:
        """The loss for sorting: a diverged trial is the worst."""
        return math.inf if self.loss is None else self.loss


@dataclass(frozen=True)
class Row:
    """One variant of a grid: its peaks, and the updates of a whole trial."""

    variant: str
    setting: str
    peaks: tuple[float, ...]
    updates: int


def next_cells(
    rows: Sequence[Row], seeds: Sequence[int], halving: bool, done: Mapping[Cell, Trial]
) -> list[Cell]:
    """The trials that can be made now, given those that are ``done``; none when all are.

    Ordered by seed, then by setting, since a new seed or setting needs a new engine. With ``halving``, short trials
    with the first seed decide which peaks get full trials.
    """
    found = []
    for row in rows:
        peaks = row.peaks
        for updates in _rungs(row.updates) if halving else ():
            cells = [Cell(row.variant, peak, seeds[0], updates) for peak in peaks]
            found += [cell for cell in cells if cell not in done]
            peaks = (
                _better_half([done[cell] for cell in cells if cell in done])
                if set(cells) <= done.keys()
                else ()
            )
        found += [Cell(row.variant, peak, seed, row.updates) for seed in seeds for peak in peaks]
    place = {row.variant: (row.setting, number) for number, row in enumerate(rows)}
    left = [cell for cell in found if cell not in done]
    return sorted(
        left,
        key=lambda cell: (
            seeds.index(cell.seed),
            place[cell.variant][0],
            cell.updates,
            place[cell.variant][1],
        ),
    )


def updates_of(rows: Sequence[Row], seeds: Sequence[int], halving: bool) -> int:
    """Updates of all trials together."""
    return sum(_updates_of_row(row, len(seeds), halving) for row in rows)


def _updates_of_row(row: Row, seeds: int, halving: bool) -> int:
    left, total = len(row.peaks), 0
    for updates in _rungs(row.updates) if halving else ():
        total += left * updates
        left = _kept(left)
    return total + left * seeds * row.updates


def _rungs(updates: int) -> list[int]:
    """The lengths of the shorter trials of successive halving."""
    return [rung for share in RUNG_SHARES if (rung := round(share * updates)) >= SHORTEST_RUNG]


def _kept(count: int) -> int:
    return min(count, max(2, math.ceil(count / 2)))


def _better_half(trials: Sequence[Trial]) -> tuple[float, ...]:
    """The peaks of the better half of ``trials``, two at least, ascending."""
    best = sorted(trials, key=lambda trial: trial.order)[: _kept(len(trials))]
    return tuple(sorted(trial.cell.peak for trial in best))


# Reading the command line


def parse_peaks(text: str) -> tuple[float, ...]:
    """Rates above zero, ascending, each once.

    >>> parse_peaks("1e-3,3e-4, 1e-3")
    (0.0003, 0.001)
    """
    try:
        peaks = {float(part) for part in text.split(",")}
    except ValueError:
        peaks = {0.0}
    if not all(math.isfinite(peak) and peak > 0 for peak in peaks):
        raise UsageError(f"--peaks {text!r} is not a list of rates above 0. Write 1e-4,3e-4,1e-3.")
    return tuple(sorted(peaks))


def default_peaks(rate: float) -> tuple[float, ...]:
    """Five peaks, a factor of two apart, around ``rate``.

    >>> default_peaks(2e-4)
    (5e-05, 0.0001, 0.0002, 0.0004, 0.0008)
    """
    return tuple(float(f"{factor * rate:.3g}") for factor in FACTORS)


def parse_seeds(text: str, first: int) -> tuple[int, ...]:
    """``3`` is a number of seeds from ``first`` on, ``0,7`` are seeds.

    >>> parse_seeds("3", 5), parse_seeds("0,7", 5)
    ((5, 6, 7), (0, 7))
    """
    parts = [part.strip() for part in text.split(",")]
    digits = all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts)
    if not digits or (len(parts) == 1 and int(parts[0]) == 0):
        raise UsageError(
            f"--seeds {text!r} is neither a number of seeds nor a list of them. Write 3 or 0,1,2."
        )
    if len(parts) == 1 and int(parts[0]) <= 100:
        return tuple(range(first, first + int(parts[0])))
    return tuple(sorted({int(part) for part in parts}))


def split_list(text: str) -> list[str]:
    """The items of a list; commas inside brackets and quotes don't separate items.

    >>> split_list("linear, wsd(decay=0.1, shape='linear'),cosine")
    ['linear', "wsd(decay=0.1, shape='linear')", 'cosine']
    """
    items, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        if char == "," and depth == 0 and not quote:
            items.append("")
        else:
            items[-1] += char
    return [item.strip() for item in items if item.strip()]


def combinations(axes: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    """Every choice of one value for each key of ``axes``.

    Raises:
        UsageError: a key can't be varied.
    """
    for key in axes:
        if key in FIXED:
            raise UsageError(f"{key} can't be varied: {FIXED[key]}.")
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def variant_name(changes: Mapping[str, str]) -> str:
    """The schedule alone where nothing else differs, else the changes with the last parts of their keys.

    >>> variant_name({"schedule": "wsd", "lora_parameters.rank": "16"}), variant_name({"warmup": "0.1"})
    ('wsd, rank=16', 'warmup=0.1')
    """
    parts = [
        value if key == "schedule" else f"{key.rpartition('.')[2]}={value}" for key, value in changes.items()
    ]
    return ", ".join(parts)
