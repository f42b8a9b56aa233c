"""mlx-lm's loop and ours on the same model and rows, in alternation, in one process."""

from __future__ import annotations
