"""Finds the peak learning rate of a run from short trainings: `Search` plans and runs them, `Found` is the result."""

from mlxsched.experiments.rate_finder.budget import Budget
from mlxsched.experiments.rate_finder.finder import Search
from mlxsched.experiments.rate_finder.result import Found

__all__ = ["Budget", "Found", "Search"]
