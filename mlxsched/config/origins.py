"""Where the value of a setting comes from, as text: what ``--dry-run`` shows and ``run.json`` records.

``default``, ``mlx-lm's default``, ``preset NAME``, ``FILE:LINE``, ``--flag``, or ``memory plan``. Behind a value
that was converted stands the original: ``lora.yaml:4 (alpha 64 / rank 64)``.
"""

from __future__ import annotations

DEFAULT = "default"
MLX_LM = "mlx-lm's default"
PRESET = "preset "
MEMORY_PLAN = "memory plan"


def from_flag(origin: str) -> bool:
    """Whether the value was given on the command line."""
    return origin.startswith("--")


def from_file(origin: str) -> bool:
    """Whether the value stands in the user's own file, not in a preset."""
    return not is_inherited(origin) and not from_flag(origin)


def is_inherited(origin: str) -> bool:
    """Whether the value is a default or a preset's, and the user did not give it.

    >>> [is_inherited(origin) for origin in ("default", "preset lora", "run.yaml:3", "--warmup")]
    [True, True, False, False]
    """
    return _source(origin) in _DEFAULTS or _source(origin).startswith(PRESET)


def outranks(origin: str, other: str) -> bool:
    """Whether a value is closer to the user than another one: given, in a preset, or a default, in this order.

    >>> outranks("--max-time", "preset lora"), outranks("preset debug", "preset debug"), outranks("run.yaml:3", "--epochs")
    (True, False, False)
    """
    return _rank(origin) > _rank(other)


_DEFAULTS = (DEFAULT, MLX_LM, MEMORY_PLAN)


def _source(origin: str) -> str:
    """Without the original of a converted value."""
    return origin.partition(" (")[0]


def _rank(origin: str) -> int:
    return 2 if not is_inherited(origin) else int(_source(origin).startswith(PRESET))
