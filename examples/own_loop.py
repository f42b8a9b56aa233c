"""Your own training loop with `mx.compile`, and a schedule from mlxsched.

    python examples/own_loop.py

A schedule goes wherever MLX takes a learning rate. The compiled step must have `optimizer.state` among its inputs and
outputs, or the rate of the first update is frozen into it.
"""

from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

import mlxsched as ms

STEPS = 200
schedule = ms.warmup_cosine(peak=1e-2, steps=STEPS, warmup=0.1)

mx.random.seed(0)
model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = optim.AdamW(learning_rate=schedule, bias_correction=True)
inputs = mx.random.normal((256, 4))
targets = mx.sin(inputs).sum(axis=1, keepdims=True)


def loss(x: mx.array, y: mx.array) -> mx.array:
    return nn.losses.mse_loss(model(x), y)


state = [model.state, optimizer.state]


@partial(mx.compile, inputs=state, outputs=state)
def update(x: mx.array, y: mx.array) -> mx.array:
    value, gradients = nn.value_and_grad(model, loss)(x, y)
    optimizer.update(model, gradients)
    return value


for step in range(STEPS):
    value = update(inputs, targets)
    mx.eval(state, value)
    if step % 40 == 0 or step == STEPS - 1:
        print(f"step {step:3d}  rate {optimizer.learning_rate.item():.6f}  loss {value.item():.4f}")
