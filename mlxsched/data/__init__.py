"""Rows to train on: read, tokenized with their targets, ordered, and cut into micro-batches.

>>> from mlxsched.data import DataOptions
>>> DataOptions().mask_prompt
True
"""

from mlxsched.data.batching.batches import Batch, collate
from mlxsched.data.batching.grid import Grid, length_grid
from mlxsched.data.batching.partition import micro_batches, shape_grid
from mlxsched.data.batching.plan import BatchingPlan, packed_plan, padded_plan
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.dataset import Counts, Dataset
from mlxsched.data.load import load_dataset
from mlxsched.data.options import DataOptions, Features
from mlxsched.data.reading import OnRows
from mlxsched.data.rows import Example, Row, Rows

__all__ = [
    "Batch",
    "BatchingPlan",
    "Counts",
    "DataOptions",
    "Dataset",
    "Example",
    "Features",
    "Grid",
    "OnRows",
    "Row",
    "Rows",
    "Sampler",
    "collate",
    "length_grid",
    "load_dataset",
    "micro_batches",
    "packed_plan",
    "padded_plan",
    "shape_grid",
]
