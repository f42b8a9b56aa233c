"""Requests whose answer is a text or a date."""

from __future__ import annotations

from random import Random

from .parts import Said, cell, cells, date, word

COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def _many(rng: Random, count: int) -> str:
    """A small number as digits or as a word."""
    return rng.choice((str(count), COUNTS[count]))


def slice_of(rng: Random) -> Said:
    """LEFT, RIGHT, MID."""
    where, count = cell(rng), rng.randint(2, 10)
    many = _many(rng, count)
    if rng.random() < 0.35:
        start = rng.randint(2, 12)
        text = rng.choice((
            f"{many} characters of {where.text} starting at position {start}",
            f"the {many} letters of {where.text} from position {start}",
        ))  # fmt: skip
        return Said(text, f"MID({where.formula},{start},{count})")
    name, side = rng.choice(
        (("LEFT", "first"), ("LEFT", "leftmost"), ("RIGHT", "last"), ("RIGHT", "rightmost"))
    )
    return Said(
        f"the {side} {many} {rng.choice(('characters', 'letters', 'digits'))} of {where.text}",
        f"{name}({where.formula},{count})",
    )


def changed(rng: Random) -> Said:
    """UPPER, LOWER, PROPER, TRIM, LEN, on a cell or on a slice of one."""
    name, says = rng.choice((
        ("UPPER", ("{} in upper case", "{} in capitals")),
        ("LOWER", ("{} in lower case", "{} in small letters")),
        ("TRIM", ("{} without extra spaces", "{} with stray spaces removed")),
        ("LEN", ("the length of {}", "how many characters are in {}")),
    ))  # fmt: skip
    inner = slice_of(rng) if rng.random() < 0.35 else cell(rng)
    made = Said(rng.choice(says).format(inner.text), f"{name}({inner.formula})")
    if name in ("UPPER", "LOWER") and rng.random() < 0.25:
        made = Said(f"{made.text} and without extra spaces", f"TRIM({made.formula})")
    return made


def joined(rng: Random) -> Said:
    """Cells joined by `&`."""
    left, right = cells(rng, 2)
    name, sign = rng.choice((
        ("a space", " "), ("a comma", ","), ("a dash", "-"), ("a slash", "/"),
    ))  # fmt: skip
    text = rng.choice((
        f"{left.text} and {right.text} joined with {name}",
        f"{left.text} followed by {name} and {right.text}",
        f"{left.text} and {right.text} with {name} between them",
    ))  # fmt: skip
    return Said(text, f'{left.formula}&"{sign}"&{right.formula}')


def found(rng: Random) -> Said:
    """SEARCH, alone or as a test."""
    where, value = cell(rng), word(rng)
    if rng.random() < 0.5:
        return Said(
            f"the position of {value.text} inside {where.text}", f"SEARCH({value.formula},{where.formula})"
        )
    return Said(
        f"a test whether {where.text} contains {value.text}",
        f"ISNUMBER(SEARCH({value.formula},{where.formula}))",
    )


def date_part(rng: Random) -> Said:
    """YEAR, MONTH, DAY, WEEKDAY."""
    where = cell(rng)
    name, says = rng.choice((
        ("YEAR", "the year of the date in {}"), ("MONTH", "the month number of {}"), ("DAY", "the day of the month of {}"),
        ("YEAR", "which year {} falls in"), ("MONTH", "which month {} falls in"), ("WEEKDAY", "the weekday number of {}"),
    ))  # fmt: skip
    return Said(says.format(where.text), f"{name}({where.formula})")


def month_end(rng: Random) -> Said:
    """EOMONTH and EDATE."""
    where, months = cell(rng), rng.randint(1, 10)
    many = _many(rng, months) + (" month" if months == 1 else " months")
    return rng.choice((
        Said(f"the last day of the month of {where.text}", f"EOMONTH({where.formula},0)"),
        Said(f"the end of the month {many} after {where.text}", f"EOMONTH({where.formula},{months})"),
        Said(f"the end of the month {many} before {where.text}", f"EOMONTH({where.formula},-{months})"),
        Said(f"the date {many} after {where.text}", f"EDATE({where.formula},{months})"),
        Said(f"the date {many} before {where.text}", f"EDATE({where.formula},-{months})"),
    ))  # fmt: skip


def between_dates(rng: Random) -> Said:
    """DATEDIF, NETWORKDAYS, a plain difference."""
    left, right = cells(rng, 2)
    if rng.random() < 0.3:
        right = date(rng)
    ends = f"{left.formula},{right.formula}"
    span = rng.choice((f"between {left.text} and {right.text}", f"from {left.text} to {right.text}"))
    return rng.choice((
        Said(f"the full years {span}", f'DATEDIF({ends},"y")'),
        Said(f"the full months {span}", f'DATEDIF({ends},"m")'),
        Said(f"the days {span}", f"{right.formula}-{left.formula}"),
        Said(f"the working days {span}", f"NETWORKDAYS({ends})"),
        Said(f"how many business days there are {span}", f"NETWORKDAYS({ends})"),
    ))  # fmt: skip


def date_ahead(rng: Random) -> Said:
    """WORKDAY, a sum of days, a fixed day, a day put together from parts."""
    where, days, day = cell(rng), rng.choice((5, 10, 15, 20, 30, 60, 90)), date(rng)
    parts = cells(rng, 3)
    return rng.choice((
        Said(f"the date {days} working days after {where.text}", f"WORKDAY({where.formula},{days})"),
        Said(f"the date {days} days after {where.text}", f"{where.formula}+{days}"),
        Said(f"the date {days} days from today", f"TODAY()+{days}"),
        Said(f"how many days are left until {day.text}", f"{day.formula}-TODAY()"),
        Said(
            f"a date with year {parts[0].text}, month {parts[1].text} and day {parts[2].text}",
            f"DATE({parts[0].formula},{parts[1].formula},{parts[2].formula})",
        ),
    ))  # fmt: skip


TEXTS = ((slice_of, 3), (changed, 4), (joined, 3), (found, 1.5))
DATES = ((date_part, 2.5), (month_end, 2.5), (between_dates, 3), (date_ahead, 2))
