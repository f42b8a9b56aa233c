"""Helpers of the data tests."""

from __future__ import annotations

from typing import Any

from mlxsched.data.dataset import Dataset


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def texts(tokenizer: Any, dataset: Dataset, split: str = "train") -> list[tuple[str, str]]:
    """Of each row: all of it, and its targets, as text."""
    rows = dataset.splits[split]
    return [
        (tokenizer.decode(row.tokens.tolist()), tokenizer.decode(row.tokens[row.targets].tolist()))
        for row in rows
    ]
