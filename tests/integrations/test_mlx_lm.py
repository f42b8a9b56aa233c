"""Our pieces inside mlx-lm's own trainer, and each against a plain computation of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

import mlxsched as ms
from mlxsched.integrations.mlx_lm import MetricsCallback, build_schedule, iterate_batches, loss
from mlxsched.runs.metrics import read_metrics

VOCABULARY = 11


class Tiny(nn.Module):
    """The smallest language model: the next token from this one; mlx-lm's trainer asks for `layers`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 8)
        self.layers = [nn.Linear(8, VOCABULARY)]

    def __call__(self, tokens: mx.array) -> mx.array:
        return self.layers[0](self.embed(tokens))


def rows(count: int, seed: int = 0, longest: int = 90) -> list[tuple[list[int], int]]:
    """Rows of 3 tokens or more, none of them 0, with an offset below their length."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, longest, count)
    return [(draw.integers(1, VOCABULARY, n).tolist(), int(draw.integers(0, n - 1))) for n in lengths]


def mean_loss(model: nn.Module, data: list[tuple[list[int], int]]) -> tuple[float, int]:
    """Token by token, in NumPy's float64."""
    total, count = 0.0, 0
    for tokens, offset in data:
        logits = np.array(model(mx.array([tokens]))[0], np.float64)
        for i in range(max(offset, 1), len(tokens)):
            row = logits[i - 1]
            total += np.log(np.exp(row).sum()) - row[tokens[i]]
            count += 1
    return total / count, count


def test_loss_scores_the_targets_and_nothing_else() -> None:
    mx.random.seed(1)
    model, data = Tiny(), rows(6)
    batch, lengths = next(iterate_batches(data, 6, 128))
    value, count = loss(model, batch, lengths)
    expected, targets = mean_loss(model, data)
    assert count.item() == targets
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_mlx_lms_own_loss_scores_the_padding_too() -> None:
    from mlx_lm.tuner.trainer import default_loss

    data = rows(6)
    batch, lengths = next(iterate_batches(data, 6, 128))
    assert default_loss(Tiny(), batch, lengths)[1].item() == loss(Tiny(), batch, lengths)[1].item() + 6


def test_a_batch_without_targets_has_loss_0_and_finite_gradients() -> None:
    batch, lengths = next(iterate_batches([([1, 2, 3, 4, 5], 5)], 1, 4))
    model = Tiny()
    (value, count), gradient = nn.value_and_grad(model, loss)(model, batch, lengths)
    assert value.item() == 0.0 and count.item() == 0
    assert mx.abs(gradient["embed"]["weight"]).max().item() == 0.0


def seen_rows(batches: Any) -> list[tuple[tuple[int, ...], int]]:
    found = []
    for tokens, spans in batches:
        for row, (offset, length) in zip(np.array(tokens), np.array(spans), strict=True):
            found.append((tuple(row[:length].tolist()), int(offset)))
    return found


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("count", [1, 4, 23])
def test_every_row_is_there_once_with_little_padding(count: int, cached: bool) -> None:
    data = rows(count)
    batches = list(iterate_batches(CachedRows(data) if cached else data, 4, 128))
    assert sorted(seen_rows(batches)) == sorted((tuple(tokens), offset) for tokens, offset in data)
    spreads = [int(np.ptp(np.array(spans)[:, 1])) for _, spans in batches]
    assert sum(spreads) <= max(len(tokens) for tokens, _ in data)  # neighbours by length share a batch


@pytest.mark.parametrize("window", [1, 5, 10])
def test_training_batches_are_random_or_of_similar_length_within_a_window(window: int) -> None:
    data = rows(40)
    stream = iterate_batches(data, 4, 128, loop=True, seed=0, length_window=window)
    batches = [next(stream) for _ in range(10)]
    assert sorted(seen_rows(batches)) == sorted((tuple(tokens), offset) for tokens, offset in data)
    spreads = [int(np.ptp(np.array(spans)[:, 1])) for _, spans in batches]
    longest = max(len(tokens) for tokens, _ in data)
    if window == 1:
        assert sum(spreads) > 3 * longest  # as random rows have it
    else:
        assert sum(spreads) <= (10 // window) * longest
    assert seen_rows([next(stream) for _ in range(10)]) != seen_rows(
        batches
    )  # the next epoch has another order


def CachedRows(data: list[tuple[list[int], int]]) -> Any:
    from mlx_lm.tuner.datasets import CacheDataset

    class Source:
        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"tokens": data[index][0], "offset": data[index][1]}

        def process(self, item: dict[str, Any]) -> tuple[list[int], int]:
            return item["tokens"], item["offset"]

    return CacheDataset(Source())


def test_long_rows_are_cut_and_plain_tokens_have_no_offset() -> None:
    tokens, spans = next(iterate_batches([[5] * 50], 1, 40))
    assert tokens.shape == (1, 40) and spans.tolist() == [[0, 40]]
    assert next(iterate_batches([[7, 8]], 1, 40))[1].tolist() == [[0, 2]]


def test_order_follows_the_seed_and_evaluation_leaves_it_alone() -> None:
    data = rows(40)

    def first_epoch(seed: int | None, evaluate: bool = False) -> list[Any]:
        np.random.seed(7)
        stream = iterate_batches(data, 4, 128, loop=True, seed=seed)
        found = []
        for _ in range(10):
            found.append(next(stream)[0].tolist())
            if evaluate:
                list(iterate_batches(data, 4, 128))
        return found

    assert first_epoch(1) == first_epoch(1) != first_epoch(2)
    assert first_epoch(None) == first_epoch(None, evaluate=True)
    once = [tokens.tolist() for tokens, _ in iterate_batches(data, 4, 128)]
    assert once == [tokens.tolist() for tokens, _ in iterate_batches(data, 4, 128)]


class Worker:
    """A rank of so many, as iterate_batches asks for it."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = lambda: rank, lambda: size


def test_workers_share_each_batch_with_equal_shapes() -> None:
    data = rows(23)
    streams = [list(iterate_batches(data, 4, 128, seed=3, comm_group=Worker(rank, 2))) for rank in (0, 1)]
    for (one, _), (other, _) in zip(*streams, strict=True):
        assert one.shape == other.shape
    both = [row for row in seen_rows([*streams[0], *streams[1]]) if row[0]]
    assert sorted(both) == sorted((tuple(tokens), offset) for tokens, offset in data)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ms.DataError, match="no rows"):
        next(iterate_batches([], 4, 128))
    with pytest.raises(ms.MlxschedError, match="batch_size"):
        next(iterate_batches(rows(4), 3, 128, comm_group=Worker(0, 2)))


def test_build_schedule_knows_both_forms() -> None:
    theirs = build_schedule({"name": "cosine_decay", "arguments": [1e-5, 100], "warmup": 10})
    assert theirs == ms.from_mlx_lm({"name": "cosine_decay", "arguments": [1e-5, 100], "warmup": 10})
    assert build_schedule({"name": "wsd", "peak": 1e-4, "steps": 100}) == ms.wsd(1e-4, 100)
    with pytest.raises(ms.ScheduleError, match="cosine_decay"):
        build_schedule({"name": "cosine_deca", "arguments": [1e-5, 100]})


def test_mlx_lms_trainer_runs_with_all_four(tmp_path: Path) -> None:
    from mlx_lm.tuner.trainer import TrainingArgs, train

    mx.random.seed(0)
    model, schedule = (
        Tiny(),
        build_schedule({"name": "warmup_linear", "peak": 0.05, "steps": 12, "warmup": 3}),
    )
    args = TrainingArgs(
        batch_size=4,
        iters=24,
        val_batches=-1,
        steps_per_report=2,
        steps_per_eval=12,
        max_seq_length=96,
        grad_accumulation_steps=2,
        adapter_file=str(tmp_path / "adapters.safetensors"),
    )
    held_out = rows(9, seed=5, longest=30)
    with MetricsCallback(tmp_path / "metrics.jsonl", grad_accumulation_steps=2) as metrics:
        train(
            model,
            optim.Adam(learning_rate=schedule),
            CachedRows(rows(24, longest=30)),
            CachedRows(held_out),
            args,
            loss=loss,
            iterate_batches=iterate_batches,
            training_callback=metrics,
        )
    records = read_metrics(tmp_path / "metrics.jsonl")
    trained = [record for record in records if record["kind"] == "train"]
    assert [record["update"] for record in trained] == list(range(12))
    np.testing.assert_allclose(
        [r["lr"] for r in trained], [schedule(r["update"]) for r in trained], rtol=1e-6
    )
    assert all(np.isfinite(record["loss"]) and record["targets"] > 0 for record in trained)
    evaluated = [record for record in records if record["kind"] == "eval"]
    assert [record["update"] for record in evaluated] == [0, 5, 11]
    assert evaluated[-1]["perplexity"] == pytest.approx(np.exp(evaluated[-1]["loss"]))
