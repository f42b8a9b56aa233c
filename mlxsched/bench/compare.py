"""Alternating rounds of both loops, and their results: ratios within each round, and medians over the rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx

from mlxsched.bench import ours, theirs
from mlxsched.bench.measured import LoopCost, Moment, by_cpu_time
from mlxsched.data.rows import Rows
from mlxsched.errors import UsageError
from mlxsched.model.load import LoadedModel
from mlxsched.model.trees import flatten, n_bytes, unflatten
from mlxsched.text import counted
from mlxsched.training.session import Session

Tell = Callable[[str, int, int], None]
_CEILING_SIZE = 512


@dataclass(frozen=True)
class Round:
    """Both sides of a round, evaluations (seconds: mlx-lm's, our first, our later), and FLOP/s of a product."""

    theirs: LoopCost
    ours: LoopCost
    evaluations: tuple[float, float, float] | None
    ceiling: float


@dataclass(frozen=True)
class Comparison:
    """Rounds over the same rows; ``work`` is the least FLOPs of an epoch, ``weights`` bytes of the model."""

    rounds: list[Round]
    rows: int
    tokens: int
    targets: int
    work: float
    weights: int
    notes: list[str] = field(default_factory=list)

    @property
    def speedup(self) -> float:
        """mlx-lm's time of the first epoch over ours, in the median round."""
        return statistics.median(r.theirs.epochs[0] / r.ours.epochs[0] for r in self.rounds)

    @property
    def later_epochs_speedup(self) -> float | None:
        """The same of the second epoch; None if there was only one."""
        if len(self.rounds[0].ours.epochs) < 2:
            return None
        return statistics.median(r.theirs.epochs[1] / r.ours.epochs[1] for r in self.rounds)

    @property
    def peak_memory_ratio(self) -> float:
        """Our peak above the weights over mlx-lm's."""
        return statistics.median(r.ours.peak / r.theirs.peak for r in self.rounds)

    @property
    def loss_difference(self) -> float:
        """The largest relative difference of the losses of the first epoch."""
        first = self.rounds[0]
        pairs = zip(first.ours.losses, first.theirs.losses, strict=True)
        return max(abs(mine - other) / abs(other) for mine, other in pairs)

    def evaluation_speedup(self, later: bool) -> float | None:
        """mlx-lm's time of an evaluation over ours, the first or a later one of the same run."""
        found = [r.evaluations for r in self.rounds if r.evaluations]
        return statistics.median(e[0] / e[1 + later] for e in found) if found else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "speedup": self.speedup,
            "later_epochs_speedup": self.later_epochs_speedup,
            "peak_memory_ratio": self.peak_memory_ratio,
            "loss_difference": self.loss_difference,
            "evaluation_speedup": self.evaluation_speedup(later=False),
            "later_evaluations_speedup": self.evaluation_speedup(later=True),
            "speedups": [r.theirs.epochs[0] / r.ours.epochs[0] for r in self.rounds],
            "rounds": len(self.rounds),
            "rows": self.rows,
            "tokens": self.tokens,
            "targets": self.targets,
            "clock": "cpu" if by_cpu_time() else "wall",
            "ceiling_gflops": self._median(lambda r: r.ceiling) / 1e9,
            "weights_mb": self.weights / 1e6,
            "mlx_lm": self._side(lambda r: r.theirs),
            "mlxsched": self._side(lambda r: r.ours),
            "notes": self.notes,
        }

    def _side(self, side: Callable[[Round], LoopCost]) -> dict[str, Any]:
        later = len(side(self.rounds[0]).epochs) > 1
        return {
            "tokens_per_second": self._median(lambda r: self.tokens / side(r).epochs[0]),
            "targets_per_second": self._median(lambda r: self.targets / side(r).epochs[0]),
            "later_tokens_per_second": self._median(lambda r: self.tokens / side(r).epochs[1])
            if later
            else None,
            "wall_tokens_per_second": self._median(lambda r: self.tokens / side(r).wall),
            "peak_memory_mb": self._median(lambda r: side(r).peak / 1e6),
            "start_peak_memory_mb": self._median(lambda r: side(r).start_peak / 1e6),
            "padding": 1 - self.tokens / side(self.rounds[0]).padded,
            "ceiling_share": self._median(lambda r: self.work / side(r).epochs[0] / r.ceiling),
            "start_seconds": self._median(lambda r: side(r).start),
        }

    def _median(self, of: Callable[[Round], float]) -> float:
        return statistics.median(map(of, self.rounds))


def compare(
    session: Session,
    *,
    rounds: int = 5,
    later: bool = True,
    evaluation: bool = True,
    tell: Tell = lambda what, done, total: None,
) -> Comparison:
    """Train ``session`` (of `shortened`) with mlx-lm's loop and with ours, ``rounds`` times, taking turns to be first.

    Each side starts from the same weights. ``later`` adds a second epoch, ``evaluation`` an evaluation of the rows.
    """
    import mlx_lm.tuner.trainer  # noqa: F401  before any clock runs

    model, rows, notes = session.loaded.model, session.train_rows, set[str]()
    initial = flatten(model.trainable_parameters())
    order = ours.order_of_epoch(session)
    epochs = 2 if later else 1

    def sides() -> Iterator[tuple[str, Callable[[], LoopCost]]]:
        yield "mlx-lm", lambda: theirs.train(session, order, epochs)
        yield "mlxsched", lambda: ours.train(session, theirs.reported(session), notes.add)

    done: list[Round] = []
    for number in range(rounds):
        measured: dict[str, LoopCost] = {}
        for name, run in list(sides())[:: 1 if number % 2 else -1]:
            tell(name, 2 * number + len(measured), 2 * rounds)
            model.update(unflatten(initial))
            measured[name] = run()
        model.update(unflatten(initial))
        times = _evaluations(session) if evaluation else None
        done.append(Round(measured["mlx-lm"], measured["mlxsched"], times, matmul_rate()))
    tell("", 2 * rounds, 2 * rounds)
    tokens = int(rows.lengths.sum()) - len(rows)  # the last token of a row is never an input
    targets = int(rows.target_counts.sum())
    work = least_work(session.loaded, tokens, targets)
    return Comparison(done, len(rows), tokens, targets, work, n_bytes(model.parameters()), sorted(notes))


def _evaluations(session: Session) -> tuple[float, float, float]:
    expected, _ = theirs.evaluate(session)
    (first, later), _ = ours.evaluate(session)
    return expected, first, later


def shortened(session: Session, rows: Rows, *, later: bool = True) -> Session:
    """``session`` over ``rows``, whole updates only, as mlx-lm trains: no clipping, Adam uncorrected, constant rate.

    One epoch, or two with ``later``, without evaluations or generation.
    """
    per_update = session.plan.batch_size
    if len(rows) < per_update:
        raise UsageError(
            f"an update of {counted(per_update, 'row')} needs more rows than {len(rows)}. "
            "Lower --batch-size or raise --rows."
        )
    updates = len(rows) // per_update
    epochs = 2 if later else 1
    off: dict[str, Any] = {
        "bias_correction": False, "max_grad_norm": None, "val_batches": 0, "test": False, "lora_plus_ratio": 1.0,
        "label_smoothing": 0.0, "z_loss": 0.0, "save_every": 10**9, "max_time": None, "adapter_path": None,
    }  # fmt: skip
    rate = session.config.learning_rate
    plan = replace(
        session.plan, rows=len(rows), updates=epochs * updates, epochs=float(epochs), updates_per_epoch=updates,
        last_rows=None, valid_rows=0, test_rows=0, save_every=10**9, steps_per_eval=epochs * updates + 1,
    )  # fmt: skip
    dataset = replace(session.dataset, splits={"train": rows})
    return replace(
        session, config=session.config.model_copy(update=off), dataset=dataset, plan=plan,
        schedule=lambda step: rate, cache=None,
    )  # fmt: skip


def least_work(loaded: LoadedModel, tokens: int, targets: int) -> float:
    """The minimum FLOPs of an epoch: every real token through the layers and back through those from the
    first trained one on (to the inputs, and to the weights where those are trained), every target to the logits
    and back. Attention scores and adapters are left out: they are a few per cent.
    """
    from mlx_lm.utils import get_total_parameters

    count: Any = get_total_parameters
    forward = backward = trained_below = 0.0
    for layer in loaded.model.layers:
        size = float(count(layer))
        trained = sum(value.size for value in flatten(layer.trainable_parameters()).values())
        trained_below = trained_below or trained
        forward += size
        backward += (size if trained_below else 0.0) + (trained if trained == size else 0.0)
    head = float(loaded.config.get("hidden_size", 0)) * float(loaded.config.get("vocab_size", 0))
    return 2 * tokens * (forward + backward) + 4 * targets * head


def matmul_rate(seconds: float = 0.2) -> float:
    """FLOP/s of ``x @ w.T`` in float32 by the clock that the rounds are timed with."""
    size = _CEILING_SIZE if by_cpu_time() else 4 * _CEILING_SIZE
    x, w = mx.random.normal((size, size)), mx.random.normal((size, size))
    mx.eval(x @ w.T)
    started, begun, products = Moment.now(), time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        mx.eval(x @ w.T)
        products += 1
    return products * 2.0 * size**3 / Moment.now().since(started)
