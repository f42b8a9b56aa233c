"""What the arguments of a schedule may be, and how they are checked.

A field annotated with one of the names below is checked and converted when the schedule is made: ``steps: Steps`` is
enough to accept ``1000`` or ``1000.0``, store an ``int``, and refuse ``-1`` with the argument's name. The names are
``Annotated`` types, so the rule travels with the type itself and not with the text of the annotation: it holds
in modules with and without ``from __future__ import annotations``, for renamed imports, and inside
``X | None`` and ``Sequence[X]``.
"""

from __future__ import annotations

import inspect
import math
import operator
import re
import reprlib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, wraps
from itertools import pairwise
from typing import Annotated, Any, ParamSpec, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from mlxsched.errors import ScheduleError
from mlxsched.text import did_you_mean

P = ParamSpec("P")
R = TypeVar("R")
Check: TypeAlias = Callable[[str, Any], Any]

MAX_COUNT = 2**53
"""The largest count of updates: the last whole number up to which float64 counts without gaps."""


def shown(value: object) -> str:
    """`value` for a message, at most about 120 characters.

    ``repr`` itself fails on deeply nested lists (RecursionError) and on integers of more than 4,300 digits (ValueError).
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**40:
        return f"an integer of {value.bit_length()} bits"
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 20


def as_real(name: str, value: object) -> float:
    """A finite float. MLX and NumPy scalars are accepted; text and booleans are not."""
    if not isinstance(value, str | bytes | bool):
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    hint = ", without quotes" if isinstance(value, str) else ""
    raise ScheduleError(f"`{name}` must be a finite number; got {shown(value)}. Give it as a number{hint}.")


def as_rate(name: str, value: object) -> float:
    """A finite float, 0 or more."""
    number = as_real(name, value)
    if number < 0:
        raise ScheduleError(f"`{name}` must not be negative; got {shown(value)}. Use 0 or more.")
    return number


def as_positive(name: str, value: object) -> float:
    """A finite float above 0."""
    number = as_real(name, value)
    if number <= 0:
        raise ScheduleError(f"`{name}` must be above 0; got {shown(value)}. Use a positive number.")
    return number


def as_ratio(name: str, value: object) -> float:
    """A float above 0 and at most 1."""
    number = as_positive(name, value)
    if number > 1:
        raise ScheduleError(f"`{name}` must be above 0 and at most 1; got {shown(value)}. Give a fraction.")
    return number


def as_portion(name: str, value: object) -> float:
    """A float from 0 to 1, both included."""
    number = as_rate(name, value)
    if number > 1:
        raise ScheduleError(f"`{name}` must be from 0 to 1; got {shown(value)}. Give a fraction of the run.")
    return number


def as_count(name: str, value: object) -> int:
    """A whole number, 0 or more; ``10.0`` counts as whole."""
    if not isinstance(value, bool):
        try:
            whole = int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            whole = -1
        if whole > MAX_COUNT:
            raise ScheduleError(f"`{name}` must be at most {MAX_COUNT}; got {shown(value)}. Lower it.")
        if whole >= 0:
            return whole
    raise ScheduleError(
        f"`{name}` must be a whole number, 0 or more; got {shown(value)}. Give a number of updates as an int."
    )


def as_steps(name: str, value: object) -> int:
    """A whole number, 1 or more."""
    number = as_count(name, value)
    if number < 1:
        raise ScheduleError(f"`{name}` must be at least 1; got {shown(value)}. Give the number of updates.")
    return number


def as_whole(name: str, value: object) -> int:
    """A whole number, also a negative one."""
    negative = isinstance(value, int | float) and value < 0
    return -as_count(name, -value) if negative else as_count(name, value)  # type: ignore[operator]


def as_duration(name: str, value: object) -> int | float:
    """Updates as an int, or a ratio below 1 as a float.

    1.0 is refused: transformers takes it for one update, others for the whole run.
    """
    if not isinstance(value, float):
        return as_count(name, value)
    if not 0 <= value < 1:
        raise ScheduleError(
            f"`{name}` must be updates (an int) or a ratio below 1 (a float); got {value!r}. "
            f"For {value:g} updates, write an int without a decimal point."
        )
    return float(value)


def as_flag(name: str, value: object) -> bool:
    """True or False; the text "no" is not taken for True."""
    if isinstance(value, bool):
        return value
    raise ScheduleError(f"`{name}` must be true or false; got {shown(value)}. Write True or False.")


def as_items(name: str, values: object, check: Check) -> tuple[Any, ...]:
    """A list, tuple or array as a tuple of checked items."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise ScheduleError(f"`{name}` must be a list; got {shown(values)}. Give the values in order.")
    return tuple(check(name, value) for value in values)


@dataclass(frozen=True)
class Rule:
    """The check that an ``Annotated`` type carries: `check(name, value)` converts the value or refuses it."""

    check: Check
    optional: bool = False

    def __call__(self, name: str, value: object) -> Any:
        return None if value is None and self.optional else self.check(name, value)


Real: TypeAlias = Annotated[float, Rule(as_real)]
"""Any finite number."""
Rate: TypeAlias = Annotated[float, Rule(as_rate)]
"""A learning rate: finite, not negative."""
Positive: TypeAlias = Annotated[float, Rule(as_positive)]
"""A finite number above 0."""
Portion: TypeAlias = Annotated[float, Rule(as_portion)]
"""A fraction, from 0 to 1."""
Ratio: TypeAlias = Annotated[float, Rule(as_ratio)]
"""A fraction, above 0 and at most 1."""
Count: TypeAlias = Annotated[int, Rule(as_count)]
"""A whole number, at least 0."""
Steps: TypeAlias = Annotated[int, Rule(as_steps)]
"""A number of updates, at least 1."""
Whole: TypeAlias = Annotated[int, Rule(as_whole)]
"""Any whole number."""
Duration: TypeAlias = Annotated[int | float, Rule(as_duration)]
"""Updates (an int, at least 0) or a ratio of the schedule's steps (a float, at least 0 and below 1)."""


def _read_rules(owner: Any) -> Mapping[str, Rule]:
    """The rules of a class's fields, or of a function's arguments, by name.

    Raises:
        ScheduleError: an annotation cannot be evaluated, so its rule cannot be known. Skipping it silently would let
            every value pass.
    """
    try:
        hints = get_type_hints(owner, include_extras=True)
    except NameError as error:
        raise ScheduleError(
            f"the annotations of {owner.__name__} must be resolvable when it is used: {error}. "
            "Import the name at the top of the module, outside of TYPE_CHECKING and of functions."
        ) from error
    found = {name: _rule_in(owner, name, hint) for name, hint in hints.items()}
    return {name: rule for name, rule in found.items() if rule is not None}


rules_of: Callable[[Any], Mapping[str, Rule]] = cache(_read_rules)
"""`_read_rules`, once for each class or function: evaluating annotations takes about 100 us."""


def _rule_in(owner: Callable[..., Any], name: str, hint: Any) -> Rule | None:
    """The rule that a type carries: its own, that of ``X | None``, or that of the items of ``Sequence[X]``."""
    if hint is bool:
        return Rule(as_flag)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return next((one for one in hint.__metadata__ if isinstance(one, Rule)), None)
    rules = [_rule_in(owner, name, one) for one in inner if one not in (type(None), Ellipsis)]
    if not any(rules):
        return None
    if origin in (Union, types.UnionType) and len(rules) == 1 and rules[0] is not None:
        return Rule(rules[0].check, optional=type(None) in inner)
    if origin in (Sequence, list, tuple) and len(rules) == 1 and rules[0] is not None:
        item = rules[0]
        return Rule(lambda name, values: as_items(name, values, item))
    raise ScheduleError(
        f"`{name}` of {owner.__name__} mixes checked types: {hint}. Annotate it with one of them, or with X | None."
    )


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check a function's arguments by their annotations, as the fields of a schedule are checked."""
    signature = inspect.signature(function)

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        bound, rules = signature.bind(*args, **kwargs), rules_of(function)
        for name, value in bound.arguments.items():
            if name in rules:
                bound.arguments[name] = rules[name](name, value)
        return function(*bound.args, **bound.kwargs)

    return wrapper


def number_from_yaml(value: Any) -> Any:
    """A float for text like ``1e-7``, which YAML 1.1 does not recognize as a number; any other value unchanged."""
    return float(value) if isinstance(value, str) and _YAML_NUMBER.fullmatch(value) else value


_YAML_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d{1,4}")


def one_of(name: str, value: object, choices: tuple[str, ...] | list[str]) -> None:
    """Refuse a word that is not among `choices`, and suggest the nearest one."""
    if isinstance(value, str) and value in choices:
        return
    near = did_you_mean(value, choices) if isinstance(value, str) else ""
    raise ScheduleError(f"`{name}` must be one of {', '.join(choices)}; got {shown(value)}.{near}")


def duration_steps(value: float, total: int) -> int:
    """A `Duration` in updates: an int as it is; a ratio of `total` rounded up, but less than `total`."""
    if isinstance(value, int):
        return value
    # 0.07 * 100 is 7.000000000000001, which must not become 8: what is whole within rounding stays.
    return min(math.ceil(value * total * (1 - 1e-12)), total - 1)


def below(name: str, value: int, limit_name: str, limit: int) -> None:
    """Refuse a part that leaves no room for what comes after it."""
    if value >= limit:
        raise ScheduleError(
            f"`{name}` must be below `{limit_name}`; got {value} and {limit}. "
            f"Lower `{name}` or raise `{limit_name}`."
        )


def fits(total: int, **parts: int) -> None:
    """Refuse parts that are together longer than the schedule."""
    if sum(parts.values()) > total:
        names, values = " + ".join(parts), " + ".join(map(str, parts.values()))
        raise ScheduleError(
            f"`{names}` must be at most `steps`; got {values} and {total}. Shorten one of them."
        )


def ascending(name: str, values: Sequence[float], *, strictly: bool = True) -> None:
    """Refuse steps that are out of order."""
    if any(one > other or (strictly and one == other) for one, other in pairwise(values)):
        rule = "Sort them and drop duplicates." if strictly else "Sort them."
        raise ScheduleError(f"`{name}` must ascend; got {shown(list(values))}. {rule}")


def split(total: int, weights: Sequence[float]) -> list[int]:
    """`total` updates cut into whole stretches in proportion to the weights."""
    whole = math.fsum(weights)
    marks = [round(total * math.fsum(weights[: index + 1]) / whole) for index in range(len(weights))]
    return [stop - start for start, stop in zip([0, *marks], marks, strict=False)]
