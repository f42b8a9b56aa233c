"""Words of messages: numbers with their nouns, and names that were perhaps meant."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: float, noun: str) -> str:
    """``number`` and ``noun``, in the plural unless there is one of it; any ending but -s is not for this.

    >>> counted(1, "update"), counted(2500, "row"), counted(1.0, "epoch"), counted(0.25, "epoch")
    ('1 update', '2,500 rows', '1 epoch', '0.25 epochs')
    """
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun}" if number == 1 else f"{shown} {noun}s"


def did_you_mean(word: object, choices: Sequence[str]) -> str:
    """``" Did you mean ...?"`` for a misspelt name, or nothing.

    >>> did_you_mean("cosin", ["cosine", "linear"])
    " Did you mean 'cosine'?"
    """
    near = closest(word, choices)
    return f" Did you mean {near!r}?" if near is not None else ""


def closest(word: object, choices: Sequence[str]) -> str | None:
    """The choice that is most like ``word``; None where none is like it.

    >>> closest("trian.jsonl", ["train.jsonl", "valid.jsonl"])
    'train.jsonl'
    """
    import difflib

    near = difflib.get_close_matches(str(word)[:100], choices, n=1, cutoff=0.5)
    return near[0] if near else None
