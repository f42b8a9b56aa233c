"""What the arguments of a schedule may be.

The fields of a schedule are annotated with the names below, and `checked` looks the rule up by that name: so
`steps: Steps` is enough to have a value tested, made a plain `int`, and refused with a helpful message.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from mlxsched.errors import ScheduleError
from mlxsched.text import did_you_mean

Rate: TypeAlias = float
"""A learning rate: finite, not negative."""
Above0: TypeAlias = float
"""A finite number above 0."""
Real: TypeAlias = float
"""Any finite number."""
Steps: TypeAlias = int
"""A number of updates, at least 1."""
Count: TypeAlias = int
"""A whole number, at least 0."""
Span: TypeAlias = int | float
"""Updates (an int, at least 0) or a ratio of the steps (a float, at least 0 and below 1)."""

Ratio: TypeAlias = float
"""A share, above 0 and at most 1."""


def real(name: str, value: object) -> float:
    """A finite float; MLX and NumPy scalars are welcome, strings and booleans are not."""
    if not isinstance(value, str | bytes | bool):
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    hint = " (YAML reads 1e-5 as text: write 1.0e-5)" if isinstance(value, str) else ""
    raise ScheduleError(f"`{name}` must be a finite number; got {value!r}. Give it as a number{hint}.")


def rate(name: str, value: object) -> float:
    """A `Rate`, or `ScheduleError` with the argument's `name`; so with the others here."""
    number = real(name, value)
    if number < 0:
        raise ScheduleError(f"`{name}` must not be negative; got {value!r}. Use 0 or more.")
    return number


def above_0(name: str, value: object) -> float:
    """A finite number above 0."""
    number = real(name, value)
    if number <= 0:
        raise ScheduleError(f"`{name}` must be above 0; got {value!r}. Use a positive number.")
    return number


def ratio(name: str, value: object) -> float:
    """A share, above 0 and at most 1."""
    number = above_0(name, value)
    if number > 1:
        raise ScheduleError(f"`{name}` must be above 0 and at most 1; got {value!r}. Give it as a share.")
    return number


def count(name: str, value: object) -> int:
    """A whole number, 0 or more; a float that is whole will do."""
    if not isinstance(value, bool):
        try:
            whole = int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            whole = -1
        if whole >= 0:
            return whole
    raise ScheduleError(
        f"`{name}` must be a whole number, 0 or more; got {value!r}. Give a count of updates as an int."
    )


def steps(name: str, value: object) -> int:
    """A number of updates, 1 or more."""
    number = count(name, value)
    if number < 1:
        raise ScheduleError(f"`{name}` must be at least 1; got {value!r}. Give the number of updates.")
    return number


def span(name: str, value: object) -> int | float:
    """Updates as an int, or a ratio below 1 as a float."""
    if not isinstance(value, float):
        return count(name, value)
    if not 0 <= value < 1:
        raise ScheduleError(
            f"`{name}` must be updates (an int) or a ratio below 1 (a float); got {value!r}. "
            f"For {value:g} updates, write an int without a decimal point."
        )
    return float(value)


Check: TypeAlias = Callable[[str, Any], Any]

CHECKS: dict[str, Check] = {
    "Rate": rate,
    "Above0": above_0,
    "Real": real,
    "Ratio": ratio,
    "Steps": steps,
    "Count": count,
    "Span": span,
}


def checked(rule: str, name: str, value: object) -> Any:
    """`value` as the rule's type; a rule that ends in ``| None`` lets None through.

    Raises:
        ScheduleError: naming the argument, its value and the cure.
    """
    base = rule.removesuffix(" | None")
    if value is None and base != rule:
        return None
    check = CHECKS.get(base)
    return value if check is None else check(name, value)


def one_of(name: str, value: object, choices: tuple[str, ...] | list[str]) -> None:
    """Refuse a word that is none of `choices`, with the nearest one that is."""
    if value in choices:
        return
    raise ScheduleError(
        f"`{name}` must be one of {', '.join(choices)}; got {value!r}.{did_you_mean(value, choices)}"
    )


def span_steps(value: float, total: int) -> int:
    """Updates of a span: an int as it is; a ratio of `total` rounded up, but less than `total`."""
    if isinstance(value, int):
        return value
    # 0.07 * 100 is 7.000000000000001: what is whole within rounding must not be rounded up.
    return min(math.ceil(value * total * (1 - 1e-12)), total - 1)


def below(name: str, value: int, limit_name: str, limit: int) -> None:
    """Refuse a span that leaves no room for what comes after it."""
    if value >= limit:
        raise ScheduleError(
            f"`{name}` must be below `{limit_name}`; got {value} and {limit}. "
            f"Lower `{name}` or raise `{limit_name}`."
        )


def fits(total: int, **parts: int) -> None:
    """Refuse parts that are together longer than the steps."""
    if sum(parts.values()) > total:
        names, values = " + ".join(parts), " + ".join(map(str, parts.values()))
        raise ScheduleError(
            f"`{names}` must be at most `steps`; got {values} and {total}. Shorten one of them."
        )


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """`total` updates cut into whole stretches in proportion to the weights."""
    whole = math.fsum(weights)
    marks = [round(total * math.fsum(weights[: index + 1]) / whole) for index in range(len(weights))]
    return [stop - start for start, stop in zip([0, *marks], marks, strict=False)]
