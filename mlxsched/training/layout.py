"""The version of what decides the last bits of a run besides its settings; a resume and all workers must agree on it."""

LAYOUT = 3
"""Increase it with every change that affects the last bits of a run: shapes of micro-batches, attention, groups of stored
activations."""
LAYOUT_NAME = "layout of micro-batches"
