"""A whole request: an intent, a frame of words around it, and its formula."""

from __future__ import annotations

from random import Random

from . import logic, numeric, texts
from .parts import Said

# Intents worded as a noun ("the total of ...") and as a verb ("look up ..."), with their probabilities.
THINGS = (
    (numeric.simple, 26), (numeric.rounded, 5), (numeric.combined, 1.5),
    *((make, odds * 0.9) for make, odds in texts.TEXTS), *((make, odds * 0.9) for make, odds in texts.DATES),
    (logic.vlookup, 3),
)  # fmt: skip
DEEDS = (
    (logic.if_else, 9), (logic.xlookup, 5), (logic.index_match, 3), (logic.safe_ratio, 2),
)  # fmt: skip

THING_FRAMES = (
    "{}", "{}", "{} please", "I need {}", "Give me {}", "Get {}", "Show {}", "Work out {}", "Calculate {}",
    "Formula for {}", "Write a formula for {}", "How do I get {}?", "Can you find {}?", "Please compute {}",
)  # fmt: skip
DEED_FRAMES = (
    "{}", "{}", "{} please", "please {}", "I need to {}", "I want to {}", "how do I {}?", "can you {}?",
    "formula to {}", "write a formula to {}", "help me {}", "this cell should {}", "we have to {}",
)  # fmt: skip


def request(rng: Random) -> Said:
    """One request and its formula, `=` included."""
    pool, frames = (THINGS, THING_FRAMES) if rng.random() < 0.7 else (DEEDS, DEED_FRAMES)
    makers, odds = zip(*pool, strict=True)
    made: Said = rng.choices(makers, odds)[0](rng)
    if made.text.startswith("if "):  # reads wrong after "I need to"
        frames = ("{}", "{} please")
    text = rng.choice(frames).format(made.text)
    return Said(text[0].upper() + text[1:] if rng.random() < 0.8 else text, "=" + made.formula)
