"""Predicted peak memory of LoRA (rank 8, all layers, bf16 or 4-bit weights) on public shapes: the table of docs/memory.md.

    python benchmarks/memory_table.py

It is the formula of `mlxsched plan` (`mlxsched/planning/memory_model.py`), without a model; no peak is measured here.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlxsched.model.fast.attention import blocks_for
from mlxsched.model.fast.cross_entropy import chunk_rows
from mlxsched.planning.memory_model import ModelShape, Workload, peak_above_weights

RANK, LENGTH, TARGETS = (
    8,
    512,
    0.4,
)  # LENGTH: of the longest row; TARGETS: the share of tokens that are scored


@dataclass(frozen=True)
class Model:
    """A public model: its shape, its number of layers, and whether input and output share the embedding."""

    name: str
    shape: ModelShape
    layers: int
    tied: bool = True

    @property
    def parameters(self) -> int:
        """Weights of projections and embeddings; the norms are too few to matter."""
        s = self.shape
        layer = 2 * s.hidden * s.queries + 2 * s.hidden * s.keys + 3 * s.hidden * s.intermediate
        return self.layers * layer + (1 if self.tied else 2) * s.vocabulary * s.hidden

    @property
    def lora(self) -> int:
        """Parameters of a LoRA on all linear modules of all layers."""
        s = self.shape
        ends = 2 * (s.hidden + s.queries) + 2 * (s.hidden + s.keys) + 3 * (s.hidden + s.intermediate)
        return RANK * self.layers * ends

    def peak(self, tokens: int, checkpoint: int) -> int:
        """Bytes above the weights with micro-batches of at most ``tokens``."""
        work = Workload(
            trained=self.layers,
            trained_bytes=4 * self.lora,
            chunk=chunk_rows(self.shape.vocabulary, checkpoint),
            checkpoint=checkpoint,
            scores=blocks_for(checkpoint).shares(LENGTH),
        )
        rows = max(tokens // LENGTH, 1)
        return peak_above_weights(self.shape, work, rows, LENGTH, round(TARGETS * rows * LENGTH))


MODELS = [
    Model("SmolLM2-135M", ModelShape(576, 1536, 9, 576, 192, 49152), 30),
    Model("Qwen3-0.6B", ModelShape(1024, 3072, 16, 2048, 1024, 151936), 28),
    Model("Llama-3.2-1B", ModelShape(2048, 8192, 32, 2048, 512, 128256), 16),
    Model("Qwen3-1.7B", ModelShape(2048, 6144, 16, 2048, 1024, 151936), 28),
    Model("Llama-3.2-3B", ModelShape(3072, 8192, 24, 3072, 1024, 128256), 28),
    Model("Qwen3-4B", ModelShape(2560, 9728, 32, 4096, 1024, 151936), 36),
    Model("Qwen3-8B", ModelShape(4096, 12288, 32, 4096, 1024, 151936), 36, tied=False),
]


def table() -> str:
    """The table in Markdown, in GB."""
    lines = [
        "| model | weights, bf16 | 4-bit | 1,024 tokens | 512 tokens | 512, checkpointed |",
        "| --- " * 6 + "|",
    ]
    for model in MODELS:
        weights = [
            model.parameters * size / 1e9 for size in (2, 4.5 / 8)
        ]  # a scale and a bias for 64 weights
        peaks = [model.peak(tokens, every) / 1e9 for tokens, every in ((1024, 0), (512, 0), (512, 1))]
        lines.append(f"| {model.name} | " + " | ".join(f"{gb:.2g}" for gb in weights + peaks) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
