"""WikiSQL as in MLX's LoRA example, tokenized with GPT-2's vocabulary; both are read from the shared data folder."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
VOCABULARY = 50304  # GPT-2's 50257, padded to a multiple of 64
_END = 50256
_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def missing() -> str:
    """Why the data is not available; empty if it is."""
    for path in (SHARED / "wikisql" / "train.jsonl", SHARED / "gpt2" / "gpt2.tiktoken"):
        if not path.is_file():
            return f"skipped: no {path.parent.name}/{path.name} in the shared data folder"
    return ""


def gpt2_tokenizer() -> Any:
    """GPT-2's tokenizer, built from its merge ranks."""
    from transformers.convert_slow_tokenizer import TikTokenConverter

    class Converter(TikTokenConverter):
        @staticmethod
        def load_tiktoken_bpe(file: str) -> dict[bytes, int]:
            lines = Path(file).read_text(encoding="ascii").split("\n")
            pairs = (line.split() for line in lines if line)
            return {base64.b64decode(token): int(rank) for token, rank in pairs}

    return Converter(vocab_file=str(SHARED / "gpt2" / "gpt2.tiktoken"), pattern=_PATTERN).converted()


def wikisql_rows(count: int) -> Any:
    """The first ``count`` rows in a fixed random order; every token but the first is a target, as in text rows."""
    from mlxsched.data.rows import rows_in_memory

    tokenizer = gpt2_tokenizer()
    lines = (SHARED / "wikisql" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = []
    for index in np.random.default_rng(0).permutation(len(lines))[:count]:
        tokens = np.array([*tokenizer.encode(json.loads(lines[index])["text"]).ids, _END], np.int32)
        rows.append((tokens, np.arange(len(tokens)) > 0))
    return rows_in_memory(rows)
