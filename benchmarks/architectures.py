"""Which short cuts each architecture of the installed mlx-lm takes, found by the self-check on a tiny random model.

Run it with `python benchmarks/architectures.py > docs/architectures.md`; with names, only those are tried.
What the self-check lets pass is compared with the plain path once more, on other rows and in other shapes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import multiprocessing
import sys
from collections import Counter
from pathlib import Path

from mlxsched.platform import blas

blas.preload()

import numpy as np  # noqa: E402  after the BLAS
from tiny_models import KEYS, REASONS, VOCABULARY, build  # noqa: E402

from mlxsched.data.batching.packing import Packing  # noqa: E402
from mlxsched.data.rows import COLUMNS, Rows, RowsWriter, from_buffers  # noqa: E402
from mlxsched.model.fast.self_check import SelfCheck, Wanted, choose_path, packed_if_right  # noqa: E402
from mlxsched.model.loss import PLAIN_LOSS  # noqa: E402

TOO_LONG = 120  # seconds
NOT_TRIED = "not tried"
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
        short_cuts = f"{self.head} | {self.prefix} | {self.checkpoint} | {self.packing}"
        return f"| {self.kind} | {short_cuts} | {self.remark.replace('|', '/')} |"


def not_tried(kind: str, reason: str) -> Line:
    """A line about an architecture without results."""
    return Line(kind, NOT_TRIED, NOT_TRIED, NOT_TRIED, reason)


def tried(kind: str) -> Line:
    """Choose short cuts for an architecture as a run does, and check the choice on other rows."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # some modules print when they are imported
            model = build(kind)
        check = SelfCheck(model, random_rows(0), PLAIN_LOSS)
    except (Exception, SystemExit) as error:  # noqa: BLE001 whatever a module does when it lacks something
        reason = REASONS.get(kind) or f"{type(error).__name__}: {' '.join(str(error).split())[:90]}"
        return not_tried(kind, reason)
    if not check.usable:
        return not_tried(kind, "the plain path's own loss or gradients are not finite")
    notes = [REASONS[kind]] if kind in REASONS else []
    if kind in KEYS:
        notes.append(f"LoRA on {', '.join(KEYS[kind])}, for mlx-lm's own choice breaks the model")
    route = choose_path(check, model, Wanted(prefix=True, checkpoint=1), notes.append)
    packed = SelfCheck(model, random_rows(0), PLAIN_LOSS, packing=LINES)
    route = packed_if_right(packed, route, LINES, notes.append)
    wrong = SelfCheck(model, random_rows(1), PLAIN_LOSS, packing=route.packing).complaint(route)
    head = "no" if route.head is None else "in chunks" if route.chunk else "gathered"
    taken = route.tap, route.checkpoint, route.packing
    prefix, checkpoint, packing = ("yes" if short_cut else "no" for short_cut in taken)
    return Line(kind, head, prefix, checkpoint, f"WRONG: {wrong}" if wrong else "; ".join(notes), packing)


def in_a_process(kind: str) -> Line:
    """As `tried`, in a process of its own: a model may crash it, or take more than two minutes."""
    context = multiprocessing.get_context("fork")  # nothing has run on the device yet, and imports are slow
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(tried(kind)))
    process.start()
    sender.close()
    try:
        if receiver.poll(TOO_LONG):
            line: Line = receiver.recv()
            return line
        return not_tried(kind, f"takes more than {TOO_LONG} s")
    except EOFError:
        process.join()
        return not_tried(kind, f"its process ends with code {process.exitcode}")
    finally:
        process.kill()


def architectures() -> list[str]:
    """The modules of mlx-lm that hold a model."""
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
    print(f"""# Short cuts by architecture

Made by `python benchmarks/architectures.py` with mlx-lm {mlx_lm.__version__}: a tiny random model of each
architecture, LoRA on the upper half of its layers, float32. **Head**: the loss only at targets, the logits in
chunks or (where what is behind the projection forbids it) gathered. **Prefix**: outputs of the frozen layers kept.
**Checkpointing**: every layer computed again in the backward pass. **Packing**: several rows in a line.
A short cut that is not right is found by the self-check at the start of a run and not taken.

Of {len(lines)} architectures {len(tried_lines)} could be built tiny; head in chunks in {counts["in chunks"]}, gathered
in {counts["gathered"]}, plain in {counts["no"]}; prefix in {prefixes}; checkpointing in {checkpoints}; packing in {packings}.
Taken and wrong: {wrong}.

| architecture | head | prefix | checkpointing | packing | remark |
| --- | --- | --- | --- | --- | --- |""")
    print("\n".join(map(str, lines)))


if __name__ == "__main__":
    main()
