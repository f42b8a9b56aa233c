"""Logs of other trainers as events: mlx-lm's output, transformers' ``trainer_state.json``, printed dicts, CSV, JSON lines.

TRL and Unsloth print the dicts of transformers, ``{'loss': 2.31, 'learning_rate': 1e-4, ...}``, one a line.
"""

from __future__ import annotations

import ast
import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlxsched.errors import DataError
from mlxsched.runs.events import MOST_UPDATES, Evaluated, Recorded, UpdateMade
from mlxsched.runs.json_file import finite_number, open_plain_file, read_object

LARGEST = 64 * 1024 * 1024  # bytes; 100,000 records are some 30 MB
_LONGEST_LINE = 10_000

# What trainers call the same thing, in lower case.
_NAMES = {
    "update": ("update", "step", "global_step", "iter", "iteration", "it"),
    "loss": ("loss", "train_loss", "train/loss", "training loss", "training_loss", "train loss"),
    "eval_loss": (
        "eval_loss",
        "val_loss",
        "eval/loss",
        "valid_loss",
        "validation loss",
        "validation_loss",
        "val loss",
    ),
    "lr": ("learning_rate", "lr", "train/learning_rate", "learning rate"),
    "grad_norm": ("grad_norm", "train/grad_norm", "gradient_norm", "grad norm"),
    "tokens_per_second": ("tokens_per_second", "tokens/sec"),
    "peak_memory_gb": ("peak_memory_gb", "peak_memory", "peak mem"),
}
_KEYS = {name: key for key, names in _NAMES.items() for name in names}

_NUMBER = r"([-+]?(?:nan|inf|[\d.]+(?:e[-+]?\d+)?))"
_MLX_LM = {
    "update": re.compile(r"Iter (\d{1,12}):", re.A),
    "loss": re.compile(rf"Train loss {_NUMBER}", re.I),
    "eval_loss": re.compile(rf"Val loss {_NUMBER}", re.I),
    "lr": re.compile(rf"Learning Rate {_NUMBER}", re.I),
    "tokens_per_second": re.compile(rf"Tokens/sec {_NUMBER}", re.I),
    "peak_memory_gb": re.compile(rf"Peak mem {_NUMBER}", re.I),
}


@dataclass(frozen=True)
class ForeignLog:
    """The events of a log, and what else it says.

    ``planned`` is the number of updates that the run was to have, and None where the log does not say.
    """

    events: tuple[Recorded, ...]
    format: str
    planned: int | None = None


def read_log(path: Path) -> ForeignLog:
    """Read the log in ``path``, whose format is told from its content.

    Raises:
        UserError: it cannot be read.
        DataError: it holds no losses.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        log = _trainer_state(read_object(path, largest=LARGEST))
    else:
        log = _text_log(_read_text(path), path.suffix.lower() == ".csv")
    if not log.events:
        raise DataError(
            f"{path}: no losses were found. mlxsched reads mlx-lm's output, transformers' trainer_state.json, printed "
            "dicts with 'loss', JSON lines, and CSV with a header such as `step,loss,learning_rate,eval_loss`."
        )
    return log


def _read_text(path: Path) -> str:
    with open(open_plain_file(path), "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise DataError(f"{path} has more than {LARGEST:,} bytes. Give a shorter part of it.")
    return content.decode("utf-8", errors="replace")


def _text_log(text: str, is_csv: bool) -> ForeignLog:
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if len(line) <= _LONGEST_LINE]
    if is_csv:
        return ForeignLog(tuple(_events(_csv_rows(lines))), "CSV")
    readers: dict[str, Callable[[list[str]], Iterator[Mapping[str, object]]]] = {
        "mlx-lm": _mlx_lm_rows,
        "JSON lines or printed dicts": _dict_rows,
        "CSV": _csv_rows,
    }
    for name, rows in readers.items():
        events = tuple(_events(rows(lines)))
        if events:
            return ForeignLog(events, name)
    return ForeignLog((), "")


def _trainer_state(state: Mapping[str, object]) -> ForeignLog:
    history = state.get("log_history")
    rows = [row for row in history if isinstance(row, dict)] if isinstance(history, list) else []
    planned, made = state.get("max_steps"), state.get("global_step")
    # The last update is logged only if it is a multiple of logging_steps: without this, a complete run looks cut off.
    known = planned if isinstance(planned, int) and planned != made else None
    return ForeignLog(tuple(_events(rows)), "transformers", known)


def _mlx_lm_rows(lines: list[str]) -> Iterator[Mapping[str, object]]:
    for line in lines:
        if _MLX_LM["update"].search(line):
            found = {key: pattern.search(line) for key, pattern in _MLX_LM.items()}
            row: dict[str, object] = {key: match[1] for key, match in found.items() if match}
            if "eval_loss" in row:  # measured before the update of that iteration
                row["update"] = int(str(row["update"])) - 1
            yield row


def _dict_rows(lines: list[str]) -> Iterator[Mapping[str, object]]:
    for line in lines:
        match = re.search(r"\{.*\}", line)
        row = _literal(match[0]) if match else None
        if isinstance(row, dict):
            yield row


def _literal(text: str) -> object:
    """A JSON object, or what Python prints for a dict; nothing is evaluated."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(re.sub(r"\b(nan|inf)\b", "None", text))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):  # TypeError: unhashable key
        return None


def _csv_rows(lines: list[str]) -> Iterator[Mapping[str, object]]:
    try:
        dialect: type[csv.Dialect] | str = csv.Sniffer().sniff("\n".join(lines[:5]), ",;\t|")
    except csv.Error:
        dialect = "excel"
    for row in csv.DictReader(lines, dialect=dialect):
        yield {str(key): value for key, value in row.items() if value not in (None, "")}


def _events(rows: Iterable[Mapping[str, object]]) -> Iterator[Recorded]:
    """The events of rows; a row without a step counts on from the one before."""
    counter = 0
    for raw in rows:
        if "train_runtime" in raw:  # transformers sums up: the loss of this row is the mean of the run
            continue
        row = {
            _KEYS[name]: value for key, value in raw.items() if (name := str(key).strip().lower()) in _KEYS
        }
        step = _value(row.get("update"))
        counter = int(step) if step is not None and 0 <= step <= MOST_UPDATES else counter + ("loss" in row)
        if "loss" in row:
            numbers = {key: _number(row[key]) for key in row.keys() - {"update", "loss", "eval_loss", "lr"}}
            # Trainers count the updates that were made; our records have the index of the update, 0 for the first.
            yield UpdateMade(max(counter - 1, 0), _number(row["loss"]), _number(row.get("lr")), **numbers)  # type: ignore[arg-type]
        if "eval_loss" in row:
            yield Evaluated(counter, _number(row["eval_loss"]))


def _value(value: object) -> float | None:
    if not isinstance(value, str):
        return finite_number(value)
    try:
        return finite_number(float(value))
    except ValueError:
        return None


def _number(value: object) -> float:
    found = _value(value)
    return math.nan if found is None else found
