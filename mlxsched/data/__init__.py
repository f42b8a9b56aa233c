"""Rows to train on: read, tokenized with their targets, ordered, and cut into micro-batches.

>>> from mlxsched.data import DataOptions
>>> DataOptions().mask_prompt
True
"""

from mlxsched.data.batches import Batch, Grid, collate, length_grid, micro_batches, shape_grid
from mlxsched.data.cuts import Cut, packed_cut, padded_cut
from mlxsched.data.dataset import Counts, Dataset
from mlxsched.data.load import load_dataset
from mlxsched.data.options import DataOptions, Features
from mlxsched.data.order import Order
from mlxsched.data.rows import Example, Row, Rows

__all__ = [
    "Batch",
    "Counts",
    "Cut",
    "DataOptions",
    "Dataset",
    "Example",
    "Features",
    "Grid",
    "Order",
    "Row",
    "Rows",
    "collate",
    "length_grid",
    "load_dataset",
    "micro_batches",
    "packed_cut",
    "padded_cut",
    "shape_grid",
]
