"""What half precision and high rates do to a training of the bundled model: the figures in the documentation.

    python benchmarks/precision.py              # all three parts, some minutes
    python benchmarks/precision.py rates        # or one of: bf16, fp16, rates

- bf16: validation loss before and after 60 updates of all weights at 3e-5: in float32, in bf16 as mlxsched trains it
  (float32 copies of the weights, or stochastic rounding), and in bf16 with MLX's AdamW as it is.
- fp16: how far the gradient of a micro-batch is from that in float32, if the loss is divided by the number of targets of
  the update before the backward pass, and as mlxsched scales it.
- rates: validation loss after 40 updates at rates around the bound from which on the plan warns.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

from mlxsched.platform.blas import preload

preload()

import mlx.core as mx  # noqa: E402  after the BLAS
import mlx.optimizers as optim  # noqa: E402
import numpy as np  # noqa: E402
from mlx.utils import tree_map  # noqa: E402

from mlxsched.analysis.rates import peak_rates  # noqa: E402
from mlxsched.config import load_config  # noqa: E402
from mlxsched.data.batching.batches import collate  # noqa: E402
from mlxsched.data.batching.grid import Grid  # noqa: E402
from mlxsched.model import adapters  # noqa: E402
from mlxsched.model.evaluate import Evaluator  # noqa: E402
from mlxsched.model.fast.forward_path import PLAIN, ForwardPath  # noqa: E402
from mlxsched.model.load import load_model  # noqa: E402
from mlxsched.model.trees import flatten, global_norm, unflatten  # noqa: E402
from mlxsched.training.assembly import make_engine, make_loader, make_pace  # noqa: E402
from mlxsched.training.session import Session, prepare  # noqa: E402

RUN = {"batch_size": 4, "warmup": 0, "test": False, "fast": False}


def planned(dtype: mx.Dtype, **flags: Any) -> Session:
    """A run of the bundled model, its weights in ``dtype``."""
    loaded, model = load_config(flags={**RUN, **flags}), load_model("tiny")
    model.model.set_dtype(dtype)
    return prepare(loaded.config, loaded.origins, loaded=model)


def evaluator_of(session: Session) -> Evaluator:
    """Measures the loss on all validation rows."""
    valid = session.dataset.splits["valid"]
    return Evaluator(session.loaded.model, valid, PLAIN, max_tokens=session.micro_batch_tokens)


def losses(session: Session) -> tuple[float, float]:
    """The validation loss before and after the training of ``session``, as mlxsched trains."""
    pace, engine = make_pace(session), make_engine(session, PLAIN)
    loader, evaluator = make_loader(session, PLAIN, pace), evaluator_of(session)
    before = engine.evaluate(evaluator).loss
    for update in range(pace.updates):
        engine.update(loader(update), pace.rate(update)).wait()
    return before, engine.evaluate(evaluator).loss


def losses_of_plain_adamw(session: Session) -> tuple[float, float]:
    """The same with MLX's AdamW on the weights as they are: moments and weights have their precision."""
    model, pace = session.loaded.model, make_pace(session)
    loader, evaluator = make_loader(session, PLAIN, pace), evaluator_of(session)
    optimizer = optim.AdamW(0.0, bias_correction=True)

    def loss_of(tree: Any, *arrays: mx.array) -> mx.array:
        model.update(tree)
        return PLAIN.loss(model, *arrays)

    before = evaluator(model.trainable_parameters()).loss
    for update in range(pace.updates):
        tree = model.trainable_parameters()
        parts = [mx.grad(loss_of)(tree, *arrays) for arrays in loader(update).arrays]
        gradients = tree_map(lambda *values: sum(values), *parts)
        model.update(tree)
        optimizer.learning_rate = mx.array(pace.rate(update))
        optimizer.update(model, optim.clip_grad_norm(gradients, session.config.max_grad_norm or math.inf)[0])
        mx.eval(model.parameters(), optimizer.state)
    return before, evaluator(model.trainable_parameters()).loss


def bf16() -> None:
    """Print the losses of full fine-tuning."""
    flags = {"iters": 60, "learning_rate": 3e-5, "fine_tune_type": "full", "schedule": "constant"}
    print("all weights, 60 updates of 4 rows at 3e-5: validation loss before and after")
    for name, train, dtype, more in (
        ("float32", losses, mx.float32, {}),
        ("bf16, float32 copies", losses, mx.bfloat16, {}),
        ("bf16, stochastic rounding", losses, mx.bfloat16, {"stochastic_rounding": True}),
        ("bf16, MLX's AdamW", losses_of_plain_adamw, mx.bfloat16, {}),
    ):
        before, after = train(planned(dtype, **flags, **more))
        print(f"  {name:<26} {before:.3f} -> {after:.3f}", flush=True)


def fp16() -> None:
    """Print the errors of gradients in float16."""
    session = planned(mx.float32, iters=1, fine_tune_type="full")
    batch = collate(session.train_rows, np.arange(8), Grid((128,)))

    def gradients(dtype: mx.Dtype, path: ForwardPath, n_targets: int) -> dict[str, mx.array]:
        model = load_model("tiny").model
        adapters.attach(model, "full", 2, {}, 0)
        model.set_dtype(dtype)

        def loss_of(tree: Any, *arrays: mx.array) -> mx.array:
            model.update(tree)
            return path.loss(model, *arrays)

        found = mx.grad(loss_of)(model.trainable_parameters(), *path.arrays(batch, n_targets))
        scale = path.loss_scale(n_targets)
        return {name: value.astype(mx.float32) / scale for name, value in flatten(found).items()}

    print(
        "relative error of the gradient in float16, by targets of the update: unscaled, as mlxsched scales it"
    )
    for n_targets in (1024, 16_384, 65_536):
        exact = gradients(mx.float32, PLAIN, n_targets)
        errors = [
            distance(gradients(mx.float16, path, n_targets), exact)
            for path in (PLAIN, ForwardPath(scaled=True))
        ]
        print(f"  {n_targets:>6} {errors[0]:6.1%} {errors[1]:6.2%}", flush=True)


def distance(found: dict[str, mx.array], exact: dict[str, mx.array]) -> float:
    """The Euclidean norm of the difference, relative to that of ``exact``."""
    difference = unflatten({name: found[name] - exact[name] for name in exact})
    return (global_norm(flatten(difference)) / global_norm(exact)).item()


def rates() -> None:
    """Print the losses at rates around the bounds."""
    print("AdamW, 40 updates of 4 rows at a constant rate: validation loss before and after")
    for kind, tried in (("lora", (2e-3, 5e-3, 1e-2, 3e-2)), ("full", (5e-4, 2e-3, 5e-3, 1e-2, 2e-2))):
        print(f"  {kind}, warned of above {peak_rates('adamw', kind).high:g}")
        for rate in tried:
            flags = {"iters": 40, "learning_rate": rate, "fine_tune_type": kind, "schedule": "constant"}
            before, after = losses(planned(mx.float32, **flags))
            print(f"    {rate:<6g} {before:.2f} -> {after:.2f}", flush=True)


PARTS = {"bf16": bf16, "fp16": fp16, "rates": rates}


def main() -> None:
    """Print the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=PARTS, metavar="PART")
    for part in parser.parse_args().parts:
        PARTS[part]()


if __name__ == "__main__":
    main()
