"""Which architectures of the installed mlx-lm train, and which optimizations work with each, on tiny random models.

Run it with `python benchmarks/architectures.py > docs/architectures.md`; names on the command line select architectures.
With `--shared` only the last column is filled in again, the rest is read from that file: ten minutes in place of an hour.
Each is trained for one update as LoRA, DoRA and full, with the default flags; mlx-lm's own loader must then compute what
our model does. What the self-check accepts is compared with the plain forward path again, on other rows and shapes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import multiprocessing
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from mlxsched.platform import blas

blas.preload()

import mlx.core as mx  # noqa: E402  after the BLAS
import numpy as np  # noqa: E402
from mlx.nn.layers.base import Module  # noqa: E402
from tiny_models import REASONS, VOCABULARY, bare, build  # noqa: E402

from mlxsched.config.schema import RunConfig  # noqa: E402
from mlxsched.data.batching.packing import Packing  # noqa: E402
from mlxsched.data.rows import Rows, rows_in_memory  # noqa: E402
from mlxsched.errors import UserError  # noqa: E402
from mlxsched.model import adapters  # noqa: E402
from mlxsched.model.fast.forward_path import PLAIN, ForwardPath  # noqa: E402
from mlxsched.model.fast.samples import sample_batch  # noqa: E402
from mlxsched.model.fast.selection import SHARED, choose_path, with_packing, with_shared_prefix  # noqa: E402
from mlxsched.model.fast.self_check import SelfCheck  # noqa: E402
from mlxsched.model.fast.shared_check import SharedCheck  # noqa: E402
from mlxsched.model.trees import Tensors, flatten  # noqa: E402
from mlxsched.training.batch_loader import UpdateBatches  # noqa: E402
from mlxsched.training.engine import Engine  # noqa: E402
from mlxsched.training.optimizers import group_tensors  # noqa: E402

TOO_LONG = 600  # seconds; the slowest takes 20 on an idle core
AT_ONCE = 2
NOT_TRIED = "not tested"
PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
LINES = Packing(48, 4)
KINDS = ("lora", "dora", "full")
LORA = RunConfig().lora_parameters.model_dump()


def random_rows(seed: int, count: int = 8) -> Rows:
    """Rows of 6 to 40 random tokens, half of them targets."""
    generator, rows = np.random.default_rng(seed), []
    for _ in range(count):
        length = int(generator.integers(6, 41))
        targets = generator.random(length) < 0.5
        targets[0], targets[-1] = False, True
        rows.append((generator.integers(1, VOCABULARY, length).astype(np.int32), targets))
    return rows_in_memory(rows)


@dataclasses.dataclass
class Line:
    """A line of the table."""

    kind: str
    trains: dict[str, str]
    remarks: list[str]
    head: str = NOT_TRIED
    prefix: str = NOT_TRIED
    checkpoint: str = NOT_TRIED
    packing: str = NOT_TRIED
    shared: str = NOT_TRIED

    @classmethod
    def read(cls, text: str) -> Line:
        """A line of the page, as `__str__` wrote it, before or with the last column."""
        kind, *cells, remark = (cell.strip() for cell in text.strip().strip("|").split("|"))
        trains = dict(zip(KINDS, cells, strict=False))
        return cls(kind, trains, remark.split("; ") if remark else [], *cells[len(KINDS) :])

    def __str__(self) -> str:
        cells = [*self.trains.values(), self.head, self.prefix, self.checkpoint, self.packing, self.shared]
        remark = "; ".join(dict.fromkeys(self.remarks)).replace("|", "/")
        return f"| {self.kind} | {' | '.join(cells)} | {remark} |"


def not_tried(kind: str, reason: str) -> Line:
    """The line of an architecture without results."""
    return Line(kind, dict.fromkeys(KINDS, NOT_TRIED), [reason])


def tried(kind: str) -> Line:
    """Train an architecture in each way, then select its optimizations as a run does."""
    reasons = [REASONS[kind]] if kind in REASONS else []
    with contextlib.redirect_stdout(sys.stderr):  # some modules print on import
        try:
            bare(kind)
        except (Exception, SystemExit) as error:  # noqa: BLE001 a module may fail in any way
            return not_tried(kind, *reasons[:1] or [_short(error)])
        line = Line(kind, {}, reasons)
        for fine_tune_type in KINDS:
            line.trains[fine_tune_type] = trained(kind, fine_tune_type, line.remarks)
        if line.trains["lora"] in ("yes", "in part"):
            optimized(line)
    return line


def trained(kind: str, fine_tune_type: str, remarks: list[str]) -> str:
    """How one update with the default flags works: ``yes``, ``in part``, ``refused`` or ``FAILS``."""
    name = {"lora": "LoRA", "dora": "DoRA"}.get(fine_tune_type, fine_tune_type)
    try:
        model, _ = bare(kind)
        attached = adapters.attach(model, fine_tune_type, -1, LORA, seed=0)
        one_update(model)
        reloaded = reload_remark(model, kind, fine_tune_type, attached)
    except UserError as error:
        remarks.extend([] if kind in REASONS else [str(error)])
        return "refused"
    except Exception as error:  # noqa: BLE001 what a run would end with
        remarks.append(f"{name}: {_short(error)}")
        return "FAILS"
    told = kind in REASONS  # the reason explains the difference
    remarks.extend([*attached.notes, *([f"{reloaded} ({name})"] if reloaded and not told else [])])
    return "in part" if attached.keys else "yes"


def one_update(model: Module) -> None:
    """Make one update on the plain path; raises ``ValueError`` if it was not applied or moved nothing."""
    before = flatten(model.trainable_parameters())
    batch = sample_batch(random_rows(0), VOCABULARY)
    engine = Engine(model, group_tensors(before, "adamw", {}, bias_correction=True), PLAIN, max_grad_norm=1.0)
    arrays, count = PLAIN.arrays(batch, batch.n_targets), batch.n_targets
    outcome = engine.update(UpdateBatches(0, batch.indices, [arrays], batch.n_tokens, count), 1e-3)
    if not outcome.applied:
        raise ValueError(f"loss {outcome.loss}, gradient norm {outcome.grad_norm}: not applied")
    if all(mx.array_equal(value, before[path]).item() for path, value in engine.tensors().items()):
        raise ValueError("an update changes nothing")
    engine.load_into_model()


def reload_remark(model: Module, kind: str, fine_tune_type: str, attached: adapters.Attached) -> str:
    """Save the adapter, and compare the logits of the model that mlx-lm makes of it; empty if they agree."""
    from mlx_lm.tuner.utils import load_adapters

    lora = {**LORA, "keys": list(attached.keys) if attached.keys else None}
    settings = adapters.adapter_config(kind, fine_tune_type, attached.layers, lora)
    with tempfile.TemporaryDirectory() as folder:
        adapters.save(Path(folder), settings, flatten(model.trainable_parameters()))
        try:
            theirs = load_adapters(bare(kind)[0], folder)
        except ValueError:
            return (
                "mlx-lm's loader refuses the tensors of its own LoRA modules; mlxsched's commands load them"
            )
    tokens = mx.array([[3, 7, 100, 11, 20]])
    pair = [one.eval()(tokens).astype(mx.float32) for one in (model, theirs)]
    difference = (mx.abs(pair[0] - pair[1]).max() / (mx.abs(pair[0]).max() + 1e-9)).item()
    return "" if difference < 1e-4 else f"WRONG: mlx-lm's loader gives logits that differ by {difference:.1e}"


def optimized(line: Line) -> None:
    """Select the optimizations, and check the selection on other rows."""
    model = build(line.kind)
    check = SelfCheck(model, random_rows(0))
    if not _finite(*check.expected):
        line.remarks.append("the plain path's own loss or gradients are not finite")
        return
    path = choose_path(check, line.remarks.append, prefix=True, checkpoint=1)
    packed = SelfCheck(model, random_rows(0), packing=LINES)
    path = with_packing(packed, path, LINES, line.remarks.append)
    wrong = SelfCheck(model, random_rows(1), packing=path.packing).disagreement(path)
    line.remarks.extend([f"WRONG: {wrong}"] if wrong else [])
    line.head = "no" if path.head is None else "in chunks" if path.chunk else "gathered"
    taken = path.boundary, path.checkpoint, path.packing
    line.prefix, line.checkpoint, line.packing = ("yes" if used else "no" for used in taken)
    share(line, model, path)


def share(line: Line, model: Module, path: ForwardPath) -> None:
    """Let rows share a prompt along ``path``, and check that on other rows."""
    line.remarks = [remark for remark in line.remarks if not remark.startswith(SHARED)]
    path = with_shared_prefix(SharedCheck(model, random_rows(0)), path, line.remarks.append)
    line.shared = "no" if path.form is None else "yes"
    wrong = SharedCheck(model, random_rows(1)).disagreement(path) if path.form is not None else None
    line.remarks.extend([f"WRONG: {SHARED}: {wrong}"] if wrong else [])


def shared_again(line: Line) -> Line:
    """``line`` of the page with its last column filled in, by steps that are not compiled: building kernels takes longest."""
    if line.head == NOT_TRIED:
        return line
    with contextlib.redirect_stdout(sys.stderr):
        mx.disable_compile()
        model = build(line.kind)
        checkpoint = int(line.checkpoint == "yes")
        share(
            line,
            model,
            choose_path(SelfCheck(model, random_rows(0)), lambda note: None, checkpoint=checkpoint),
        )
    return line


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:90]}"


def _finite(loss: float, gradients: Tensors) -> bool:
    return math.isfinite(loss) and all(mx.isfinite(g).all().item() for g in gradients.values())


def in_a_process(kind: str, make: Callable[[], Line]) -> Line:
    """Call ``make`` for architecture ``kind`` in a separate process: a model may crash it, or never end."""
    context = multiprocessing.get_context(
        "fork"
    )  # safe: nothing has used the device yet; and imports are slow
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(make()))
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


def _is_line(text: str) -> bool:
    return text.startswith("| ") and not text.startswith(("| architecture", "| ---"))


def page(lines: list[Line]) -> str:
    """The table, with an explanation and totals above it."""
    import mlx_lm

    tested = [line for line in lines if line.head != NOT_TRIED]
    trains = {kind: sum(line.trains[kind] in ("yes", "in part") for line in lines) for kind in KINDS}
    heads = Counter(line.head for line in tested)
    prefixes, checkpoints, packings, shared = (
        sum(getattr(line, name) == "yes" for line in tested)
        for name in ("prefix", "checkpoint", "packing", "shared")
    )
    wrong = sum(remark.startswith("WRONG") for line in lines for remark in line.remarks)
    return "\n".join(
        [
            f"""# Architectures: which train, and with which optimizations

Generated by `python benchmarks/architectures.py` with mlx-lm {mlx_lm.__version__}. The script builds a tiny random model of each
architecture in float32, trains it for one update with the default flags, and lets mlx-lm load the adapter. Then the
self-check chooses optimizations for LoRA on the upper half of the layers, as at the start of a run.

- **LoRA, DoRA, full**: `--fine-tune-type`. "in part": some modules are left out, which the remark and every run name.
  "refused": `mlxsched train` says so and ends before the first update.
- **Head**: the loss is computed at targets only. The logits are computed in chunks, or gathered where an operation
  after the projection rules out chunks.
- **Prefix**: the outputs of the frozen layers (frozen-prefix activations) are stored.
- **Checkpointing**: the backward pass recomputes every layer.
- **Packing**: several short rows share one line (sequence packing).
- **Shared prompts**: what several rows begin with is computed once. Tested with checkpointing where that is used, and
  with `--shared` by steps that are not compiled.

An optimization that is wrong for a model fails the self-check, and the run does without it.

Of {len(lines)} architectures, {trains["lora"]} train with LoRA, {trains["dora"]} with DoRA and {trains["full"]} in full, those in part included. Optimizations
were tested with {len(tested)}. Head: in chunks for {heads["in chunks"]}, gathered for {heads["gathered"]}, not used for {heads["no"]}. Prefix: {prefixes}. Checkpointing: {checkpoints}.
Packing: {packings}. Shared prompts: {shared}. Wrong results: {wrong}.

| architecture | LoRA | DoRA | full | head | prefix | checkpointing | packing | shared prompts | remark |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |""",
            *map(str, lines),
        ]
    )


def main() -> None:
    """Print the page."""
    from transformers import AutoTokenizer  # noqa: F401 the slowest import, once for all processes

    names, tasks = [name for name in sys.argv[1:] if not name.startswith("-")], []
    if "--shared" in sys.argv:
        known = [Line.read(text) for text in PAGE.read_text(encoding="utf-8").splitlines() if _is_line(text)]
        tasks = [
            (line.kind, partial(shared_again, line)) for line in known if not names or line.kind in names
        ]
    else:
        tasks = [(kind, partial(tried, kind)) for kind in names or architectures()]
    lines = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for line in pool.map(lambda task: in_a_process(*task), tasks):
            lines.append(line)
            print(line, file=sys.stderr, flush=True)
    print(page(lines))


if __name__ == "__main__":
    main()
