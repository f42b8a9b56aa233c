"""mlx-lm's loop and ours on the same model and rows, in turn, in one process."""

from __future__ import annotations
