"""The peak rates that suit a run, by optimizer and by what is trained: for the plan of a run and for `mlxsched check`.

`python benchmarks/precision.py` measures the bundled model on either side of the upper bounds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from mlxsched.text import number

# Adam moves each parameter by about the rate in every update, whatever the size of the gradient. LoRA's A starts within
# 1 / sqrt(width), 0.02 for a width of 2048, so at 0.02 one update moves A by as much as A is. In 40 updates on the
# bundled model (validation loss 2.20 at the start) a LoRA of rank 8 and scale 20 reaches 0.73 at 2e-3, 2.28 at 5e-3 and
# 4.30 at 1e-2. The best rate goes with 1 / sqrt(scale * rank). All weights: 1e-5 to 5e-5 is usual; a model of
# a million parameters stands more, larger ones less. Without a run, nothing is known of it.
_ADAM = {"lora": (2e-5, 2e-4, 5e-3), "full": (1e-6, 3e-5, 5e-4), "": (1e-6, 2e-4, 5e-3)}
# The same three, relative to Adam. Lion's updates have the size of the rate, too, and want a third to a tenth
# (arXiv 2302.06675). Muon's are orthogonal: a parameter of a matrix of width n moves by rate / sqrt(n). SGD's depend on
# the gradient, which is clipped to a norm of 1 by default: 10 to 100 times Adam's rate is usual.
_FACTORS = {"lion": (0.1, 0.2, 0.3), "sgd": (1.0, 30.0, 1000.0), "muon": (1.0, 10.0, 40.0)}


class Rates(NamedTuple):
    """Below `low` a run learns slowly; `usual` is a start; above `high` it is likely to diverge."""

    low: float
    usual: float
    high: float

    def start(self, ratio: float = 1.0) -> float:
        """The rate to start with where LoRA's B matrices train at ``ratio`` times it: min(usual / sqrt(ratio), high / ratio).

        The geometric mean of the rates of A and B is then the usual one. At usual / ratio, A would learn next to nothing.

        >>> peak_rates("adamw", "lora").start(), peak_rates("adamw", "lora").start(16)
        (0.0002, 5e-05)
        """
        return min(self.usual / math.sqrt(ratio), self.high / ratio)


def peak_rates(optimizer: str, fine_tune_type: str = "") -> Rates:
    """The peaks for `optimizer` on ``lora``, ``dora`` or ``full``; empty for a schedule without a run.

    >>> peak_rates("adamw", "lora").high, peak_rates("adamw", "full").high
    (0.005, 0.0005)
    """
    kind = "lora" if fine_tune_type == "dora" else fine_tune_type
    factors = _FACTORS.get(optimizer, (1.0, 1.0, 1.0))
    return Rates(*(rate * factor for rate, factor in zip(_ADAM[kind], factors, strict=True)))


def next_peak(lower: float, usual: float) -> str:
    """The peak to try after one that was too high, as text for a command: the smaller of ``lower`` and ``usual``.

    >>> next_peak(0.5 / 10, 2e-4), next_peak(3.3333e-5, 2e-4)
    ('2e-4', '3.3e-5')
    """
    return number(float(f"{min(lower, usual):.2g}"))
