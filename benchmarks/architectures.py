"""Which optimizations work with each architecture of the installed mlx-lm, by the self-check on a tiny random model.

Run it with `python benchmarks/architectures.py > docs/architectures.md`; names on the command line select architectures.
What the self-check accepts is compared with the plain forward path again, on other rows and in other shapes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import multiprocessing
import sys
from collections import Counter
from pathlib import Path

from mlxsched.platform import blas

blas.preload()

import mlx.core as mx  # noqa: E402  after the BLAS
import numpy as np  # noqa: E402
from tiny_models import REASONS, VOCABULARY, build  # noqa: E402

from mlxsched.data.batching.packing import Packing  # noqa: E402
from mlxsched.data.rows import COLUMNS, Rows, RowsWriter, from_buffers  # noqa: E402
from mlxsched.model.fast.selection import choose_path, with_packing  # noqa: E402
from mlxsched.model.fast.self_check import SelfCheck  # noqa: E402
from mlxsched.model.trees import Tensors  # noqa: E402

TOO_LONG = 120  # seconds
NOT_TRIED = "not tested"
LINES = Packing(48, 4)


def random_rows(seed: int, count: int = 8) -> Rows:
    """Rows of 6 to 40 random tokens, half of them targets."""
    files = {name: io.BytesIO() for name in COLUMNS}
    writer, generator = RowsWriter(files), np.random.default_rng(seed)
    for _ in range(count):
        length = int(generator.integers(6, 41))
        targets = generator.random(length) < 0.5
        targets[0], targets[-1] = False, True
        writer.add(generator.integers(1, VOCABULARY, length).astype(np.int32), targets, 1, "")
    return from_buffers({name: file.getvalue() for name, file in files.items()})


@dataclasses.dataclass
class Line:
    """A line of the table."""

    kind: str
    head: str = ""
    prefix: str = ""
    checkpoint: str = ""
    remark: str = ""
    packing: str = NOT_TRIED

    def __str__(self) -> str:
        cells = f"{self.head} | {self.prefix} | {self.checkpoint} | {self.packing}"
        return f"| {self.kind} | {cells} | {self.remark.replace('|', '/')} |"


def not_tried(kind: str, reason: str) -> Line:
    """The line of an architecture without results."""
    return Line(kind, NOT_TRIED, NOT_TRIED, NOT_TRIED, reason)


def tried(kind: str) -> Line:
    """Select the optimizations of an architecture as a run does, and check the selection on other rows."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # some modules print on import
            model = build(kind)
        check = SelfCheck(model, random_rows(0))
    except (Exception, SystemExit) as error:  # noqa: BLE001 a module may fail in any way
        reason = REASONS.get(kind) or f"{type(error).__name__}: {' '.join(str(error).split())[:90]}"
        return not_tried(kind, reason)
    if not _finite(*check.expected):
        return not_tried(kind, "the plain path's own loss or gradients are not finite")
    notes = [REASONS[kind]] if kind in REASONS else []
    path = choose_path(check, notes.append, prefix=True, checkpoint=1)
    packed = SelfCheck(model, random_rows(0), packing=LINES)
    path = with_packing(packed, path, LINES, notes.append)
    wrong = SelfCheck(model, random_rows(1), packing=path.packing).disagreement(path)
    head = "no" if path.head is None else "in chunks" if path.chunk else "gathered"
    taken = path.boundary, path.checkpoint, path.packing
    prefix, checkpoint, packing = ("yes" if used else "no" for used in taken)
    return Line(kind, head, prefix, checkpoint, f"WRONG: {wrong}" if wrong else "; ".join(notes), packing)


def _finite(loss: float, gradients: Tensors) -> bool:
    return math.isfinite(loss) and all(mx.isfinite(g).all().item() for g in gradients.values())


def in_a_process(kind: str) -> Line:
    """Call `tried` in a separate process: a model may crash it, or take more than two minutes."""
    context = multiprocessing.get_context(
        "fork"
    )  # safe: nothing has used the device yet; and imports are slow
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(tried(kind)))
    process.start()
    sender.close()
    try:
        if receiver.poll(TOO_LONG):
            line: Line = receiver.recv()
            return line
        return not_tried(kind, f"takes longer than {TOO_LONG} s")
    except EOFError:
        process.join()
        return not_tried(kind, f"its process exits with code {process.exitcode}")
    finally:
        process.kill()


def architectures() -> list[str]:
    """The modules of mlx-lm that define a model."""
    import mlx_lm.models

    folder = Path(mlx_lm.models.__path__[0])
    sources = {file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py"))}
    return [name for name, text in sources.items() if "class Model(" in text and "class ModelArgs" in text]


def main() -> None:
    """Print the page."""
    import mlx_lm.tuner.utils

    lines = []
    for kind in sys.argv[1:] or architectures():
        lines.append(in_a_process(kind))
        print(lines[-1], file=sys.stderr, flush=True)
    tried_lines = [line for line in lines if line.head != NOT_TRIED]
    counts = Counter(line.head for line in tried_lines)
    prefixes = sum(line.prefix == "yes" for line in tried_lines)
    checkpoints = sum(line.checkpoint == "yes" for line in tried_lines)
    packings = sum(line.packing == "yes" for line in tried_lines)
    wrong = sum(line.remark.startswith("WRONG") for line in tried_lines)
    print(f"""# Optimizations by architecture

Generated by `python benchmarks/architectures.py` with mlx-lm {mlx_lm.__version__}. The script builds a tiny random model of each
architecture, in float32 with LoRA on the upper half of the layers, and lets the self-check choose, as at the start of a
run.

- **Head**: the loss is computed at targets only. The logits are computed in chunks, or gathered where an operation
  after the projection rules out chunks.
- **Prefix**: the outputs of the frozen layers (frozen-prefix activations) are stored.
- **Checkpointing**: the backward pass recomputes every layer.
- **Packing**: several short rows share one line (sequence packing).

An optimization that is wrong for a model fails the self-check, and the run does without it.

The script could build {len(tried_lines)} of {len(lines)} architectures. Head: in chunks for {counts["in chunks"]}, gathered for {counts["gathered"]}, not used for {counts["no"]}. Prefix: {prefixes}.
Checkpointing: {checkpoints}. Packing: {packings}. Used although wrong: {wrong}.

| architecture | head | prefix | checkpointing | packing | remark |
| --- | --- | --- | --- | --- | --- |""")
    print("\n".join(map(str, lines)))


if __name__ == "__main__":
    main()
