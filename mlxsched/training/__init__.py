"""The training loop on mlx-lm's models: plan in, events out; prints nothing."""

from __future__ import annotations
