"""Text for people: numbers, sizes, times, nouns, suggestions, and foreign text made safe for a terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

# ESC sequences (CSI; OSC up to BEL or ST; two-byte ones), then each control character except tab and newline. The C1
# controls 0x80 to 0x9f count: many terminals take 0x9b for ESC [.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def without_controls(text: str) -> str:
    """`text` without control characters and escape sequences, for text that comes from a file or a model.

    Lone surrogates, which no encoding can write, become U+FFFD.

    >>> without_controls("\\x1b[31mred\\x1b[0m\\tand\\x07 plain")
    'red\\tand plain'
    """
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("", text))


def number(value: float) -> str:
    """A number as people write a learning rate or an update: short, with no rounding that matters.

    >>> [number(v) for v in (0, 2e-4, 1.5e-5, 0.25, 1000, 12_500, 3_000_000, -2.0, float("inf"))]
    ['0', '2e-4', '1.5e-5', '0.25', '1000', '12500', '3e6', '-2', 'inf']
    """
    if value == 0 or not math.isfinite(value) or 1e-2 <= abs(value) < 1e5:
        return f"{value:.6g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def rounded(value: float, digits: int = 2) -> str:
    """A number with ``digits`` significant digits; large numbers have no exponent.

    >>> rounded(0.0123), rounded(9.96), rounded(128.4), rounded(1234.5, 3)
    ('0.012', '10', '130', '1,230')
    """
    short = float(f"{value:.{digits}g}")
    return f"{short:,.0f}" if abs(short) >= 10 ** (digits - 1) else f"{short:g}"


def megabytes(size: float) -> str:
    """A size in bytes as megabytes of 10**6 bytes, or as kilobytes where these would be 0.0.

    >>> megabytes(1_234_567_890), megabytes(3200)
    ('1,234.6 MB', '3.2 kB')
    """
    if size < 1e5:
        return f"{size / 1e3:.1f} kB"
    return f"{size / 1e6:,.1f} MB"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(75), clock(3700)
    ('1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def short_time(seconds: float) -> str:
    """A measured time with two digits, or as `clock` from 100 seconds on.

    >>> [short_time(s) for s in (0.1234, 1.53, 76.4, 190)]
    ['0.12 s', '1.5 s', '76 s', '3:10']
    """
    return f"{seconds:.2g} s" if seconds < 99.5 else clock(seconds)


def about(seconds: float) -> str:
    """A time that was estimated: two digits at most, in the unit that fits.

    >>> [about(s) for s in (4, 34, 75, 250, 3000, 5000, 100_000)]
    ['a few seconds', 'about 30 s', 'about 1.2 min', 'about 4.2 min', 'about 50 min', 'about 1.4 h', 'about 28 h']
    """
    if seconds < 10:
        return "a few seconds"
    size, unit = next((size, unit) for size, unit in ((3600, "h"), (60, "min"), (1, "s")) if seconds >= size)
    amount = seconds / size
    shown = (
        f"{amount:.1f}"
        if amount < 10 and size > 1
        else f"{float(f'{amount:.1g}' if size == 1 else f'{amount:.2g}'):,.0f}"
    )
    return f"about {shown} {unit}"


def counted(number: float, noun: str) -> str:
    """`number` and `noun`, in the plural unless there is one; only for nouns that take -s.

    >>> counted(1, "update"), counted(2500, "row"), counted(1.0, "epoch"), counted(0.25, "epoch")
    ('1 update', '2,500 rows', '1 epoch', '0.25 epochs')
    """
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun}" if number == 1 else f"{shown} {noun}s"


def printable(text: str, limit: int = 80) -> str:
    """``text`` on one line of at most ``limit`` characters, with escapes for what cannot be seen.

    For text from a file or a model: control sequences must not reach the terminal, and a lone surrogate cannot
    be encoded.

    >>> printable("red" + chr(27) + "[31m" + chr(10))
    'red\\\\x1b[31m\\\\n'
    """
    pieces = [
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text[:limit]
    ]
    shown = "".join(pieces)
    return shown[:limit] + "..." if len(text) > limit or len(shown) > limit else shown


def did_you_mean(word: object, choices: Sequence[str], cutoff: float = 0.5) -> str:
    """``" Did you mean ...?"`` for a misspelled name, or an empty string.

    >>> did_you_mean("cosin", ["cosine", "linear"])
    " Did you mean 'cosine'?"
    """
    near = closest(word, choices, cutoff)
    return f" Did you mean {near!r}?" if near is not None else ""


def closest(word: object, choices: Sequence[str], cutoff: float = 0.5) -> str | None:
    """The choice that is most similar to `word`, or None when no similarity reaches `cutoff` (0 to 1).

    >>> closest("trian.jsonl", ["train.jsonl", "valid.jsonl"])
    'train.jsonl'
    """
    import difflib

    near = difflib.get_close_matches(str(word)[:100], choices, n=1, cutoff=cutoff)
    return near[0] if near else None
