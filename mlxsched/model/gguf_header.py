"""The header of a GGUF file, read without its weights: what the model is, and how large MLX makes it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxsched.errors import ModelError
from mlxsched.model.gguf import FAMILIES

_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9

# ggml's types that MLX reads -> name, and bits of a weight in MLX. Q4_0, Q4_1 and Q8_0 stay quantized and carry a
# scale and a bias, 16 bits each, for 32 weights; the others become half-precision floats.
_READ: dict[int, tuple[str, float]] = {
    0: ("F32", 32),
    1: ("F16", 16),
    2: ("Q4_0", 5),
    3: ("Q4_1", 5),
    8: ("Q8_0", 9),
    10: ("Q2_K", 16),
    12: ("Q4_K", 16),
    14: ("Q6_K", 16),
    30: ("BF16", 16),
}


@dataclass(frozen=True)
class Header:
    """Metadata (the length in place of an array), bytes of the weights in MLX, and why MLX cannot have the model."""

    metadata: dict[str, Any]
    size: int
    type: str  # of most weights
    problem: str

    def config(self) -> dict[str, Any]:
        """The widths that `ModelShape.of` and the number of layers, under the names of ``config.json``."""
        family = self.metadata.get("general.architecture", "")
        keys = {
            "hidden_size": "embedding_length",
            "num_hidden_layers": "block_count",
            "intermediate_size": "feed_forward_length",
            "num_attention_heads": "attention.head_count",
            "num_key_value_heads": "attention.head_count_kv",
            "head_dim": "attention.key_length",
        }
        found = {name: self.metadata.get(f"{family}.{key}") for name, key in keys.items()}
        return found | {"vocab_size": self.metadata.get("tokenizer.ggml.tokens")}


def read_header(file: Path) -> Header:
    """The header of ``file``; raises ``ModelError`` where it is damaged."""
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _parse(_Cursor(content))
    except (OSError, ValueError, struct.error, KeyError) as error:
        raise ModelError(f"{file} is not a readable GGUF file: {error}.") from error


class _Cursor:
    """A position in the file; everything is little-endian."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content, self._position = content, 4  # after the magic number

    def number(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._content, self._position)
        self._position += struct.calcsize(form)
        return value

    def text(self) -> str:
        length = self.number("<Q")
        start, self._position = self._position, self._position + length
        if self._position > len(self._content):
            raise ValueError("a string extends past its end")
        return self._content[start : self._position].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.number(_SCALARS[kind])
        inner, count = self.number("<I"), self.number("<Q")
        if inner in _SCALARS:
            self._position += count * struct.calcsize(_SCALARS[inner])
        else:
            for _ in range(count):
                self.value(inner)
        return count


def _parse(cursor: _Cursor) -> Header:
    cursor.number("<I")  # version
    tensors, keys = cursor.number("<Q"), cursor.number("<Q")
    metadata = {}
    for _ in range(keys):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("<I"))
    counts: dict[int, int] = {}
    for _ in range(tensors):
        cursor.text()
        shape = [cursor.number("<Q") for _ in range(cursor.number("<I"))]
        kind = cursor.number("<I")
        cursor.number("<Q")
        counts[kind] = counts.get(kind, 0) + math.prod(shape)
    size = sum(count * _READ[kind][1] / 8 for kind, count in counts.items() if kind in _READ)
    usual = max(counts, key=lambda kind: counts[kind], default=0)
    name = _READ[usual][0] if usual in _READ else f"type {usual}"
    return Header(metadata, round(size), name, _problem(metadata, counts))


def _problem(metadata: dict[str, Any], counts: dict[int, int]) -> str:
    family = metadata.get("general.architecture")
    if family not in FAMILIES or metadata.get(f"{family}.expert_count"):
        return f"architecture {family}" if family not in FAMILIES else "has experts"
    if metadata.get("split.count", 1) > 1:
        return "in parts"
    unread = [kind for kind in counts if kind not in _READ]
    return f"weights of ggml's type {unread[0]}" if unread else ""
