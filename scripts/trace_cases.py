"""What ``record_traces.py`` records: for each peer and name the formula, and sets of arguments, unusual ones included.

A case is ``(marks, last, arguments)``: the steps at which the formula changes, the last step that the peer
accepts (None: any step), and the arguments of our alias under the peer's names.
t is the step, T the total, W the warmup, p the progress of the decay.
"""

# ruff: noqa: C408 - the arguments read like the calls that they represent
from __future__ import annotations

import random
from typing import Any

Case = tuple[list[int], int | None, dict[str, Any]]
Cases = dict[str, tuple[str, list[Case]]]

TORCH: Cases = {
    "StepLR": (
        "lr * gamma^(t // step_size)",
        [
            ([10, 20, 50], None, dict(lr=2e-4, step_size=10)),
            ([3, 9], None, dict(lr=1.0, step_size=3, gamma=0.9)),
            ([1], None, dict(lr=0.1, step_size=1, gamma=1.1)),
            ([2], None, dict(lr=0.1, step_size=2, gamma=0.0)),
        ],
    ),
    "MultiStepLR": (
        "lr * gamma^(number of milestones <= t)",
        [
            ([30, 80], None, dict(lr=1e-3, milestones=[30, 80])),
            ([5, 9], None, dict(lr=1e-3, milestones=[9, 5, 5], gamma=0.5)),
            ([0, 3], None, dict(lr=1e-3, milestones=[0, 3])),
            ([3], None, dict(lr=1e-3, milestones=[])),
        ],
    ),
    "ConstantLR": (
        "lr * factor until total_iters, lr from there on",
        [
            ([5], None, dict(lr=3e-4)),
            ([40], None, dict(lr=3e-4, factor=0.5, total_iters=40)),
            ([1], None, dict(lr=3e-4, factor=1.0, total_iters=1)),
            ([2], None, dict(lr=3e-4, factor=0.5, total_iters=0)),
        ],
    ),
    "LinearLR": (
        "lr * (start + (end - start) * min(t, n) / n)",
        [
            ([5], None, dict(lr=3e-4)),
            ([100], None, dict(lr=3e-4, start_factor=1.0, end_factor=0.0, total_iters=100)),
            ([1], None, dict(lr=3e-4, start_factor=0.01, end_factor=0.5, total_iters=1)),
            ([2], None, dict(lr=3e-4, total_iters=0)),
        ],
    ),
    "ExponentialLR": (
        "lr * gamma^t",
        [
            ([50], None, dict(lr=1e-3, gamma=0.95)),
            ([400], None, dict(lr=1e-3, gamma=0.999)),
            ([1], None, dict(lr=1e-3, gamma=0.0)),
        ],
    ),
    "PolynomialLR": (
        "lr * (1 - min(t, n) / n)^power",
        [
            ([5], None, dict(lr=1e-3)),
            ([100], None, dict(lr=1e-3, total_iters=100, power=2.0)),
            ([60], None, dict(lr=1e-3, total_iters=60, power=0.5)),
            ([2], None, dict(lr=1e-3, total_iters=0)),
        ],
    ),
    "CosineAnnealingLR": (
        "eta_min + (lr - eta_min) * (1 + cos(pi t / T_max)) / 2, rising again after T_max",
        [
            ([100, 200], None, dict(lr=2e-4, T_max=100)),
            ([37, 74], None, dict(lr=2e-4, T_max=37, eta_min=1e-5)),
            ([1, 2], None, dict(lr=2e-4, T_max=1, eta_min=1e-6)),
        ],
    ),
    "CosineAnnealingWarmRestarts": (
        "eta_min + (lr - eta_min) * (1 + cos(pi t_cur / t_i)) / 2, t_i = T_0 T_mult^i",
        [
            ([50, 100, 150], None, dict(lr=2e-4, T_0=50)),
            ([10, 30, 70, 150], None, dict(lr=2e-4, T_0=10, T_mult=2, eta_min=1e-6)),
            ([1, 4, 13, 40], None, dict(lr=2e-4, T_0=1, T_mult=3)),
            ([1, 2], None, dict(lr=2e-4, T_0=1)),
        ],
    ),
    "CyclicLR": (
        "base_lr + (max_lr - base_lr) * triangle(t) * (1, 2^-(cycle - 1), gamma^t)",
        [
            ([20, 40, 60, 80], None, dict(base_lr=1e-5, max_lr=1e-3, step_size_up=20)),
            (
                [10, 40, 50, 80],
                None,
                dict(base_lr=1e-5, max_lr=1e-3, step_size_up=10, step_size_down=30, mode="triangular2"),
            ),
            (
                [15, 30, 45],
                None,
                dict(base_lr=0.0, max_lr=1e-3, step_size_up=15, mode="exp_range", gamma=0.99),
            ),
            ([1, 2], None, dict(base_lr=1e-4, max_lr=1e-3, step_size_up=1)),
        ],
    ),
    "OneCycleLR": (
        "max_lr/div to max_lr at pct_start T - 1, to max_lr/div/final_div at T - 1",
        [
            ([29, 99], 99, dict(max_lr=1e-3, total_steps=100)),
            ([24, 76], 76, dict(max_lr=1e-3, total_steps=77, pct_start=0.33, anneal_strategy="linear")),
            (
                [19, 38, 79],
                79,
                dict(max_lr=1e-3, total_steps=80, pct_start=0.25, three_phase=True, div_factor=10.0),
            ),
            (
                [1, 2, 9],
                9,
                dict(max_lr=1e-3, total_steps=10, pct_start=0.25, three_phase=True, anneal_strategy="linear"),
            ),
            (
                [9, 49],
                49,
                dict(max_lr=2e-4, epochs=5, steps_per_epoch=10, pct_start=0.2, final_div_factor=100.0),
            ),
            *(
                (
                    [3, 9],
                    9,
                    dict(max_lr=1e-3, total_steps=10, pct_start=pct, three_phase=three, anneal_strategy=way),
                )
                for pct in (0.0, 0.05, 0.5, 0.55, 0.6, 0.8, 0.95, 1.0)
                for three in (False, True)
                for way in ("cos", "linear")
            ),
            ([0], 0, dict(max_lr=1e-3, total_steps=1)),
            ([0, 1], 1, dict(max_lr=1e-3, total_steps=2)),
            ([0, 2], 2, dict(max_lr=1e-3, total_steps=3, three_phase=True, pct_start=0.5)),
        ],
    ),
}

HF_COSINE = "lr * max(0, (1 + cos(2 pi num_cycles p)) / 2) after t / W, rising again after T"
HF_MIN = "lr * (min_lr_rate + (1 - min_lr_rate) * (1 + cos(2 pi num_cycles p)) / 2) after t / W"


def hf(marks: list[int], rate: float, total: int, last: int | None = None, **more: Any) -> Case:
    arguments = dict(learning_rate=rate, num_training_steps=total) | more
    return marks, last, arguments


HF: Cases = {
    "linear": (
        "lr * t / W, then lr * max(0, (T - t) / (T - W))",
        [
            hf([100, 1000], 2e-4, 1000, warmup_steps=100),
            hf([100], 2e-4, 100),
            hf([4, 53], 1e-3, 53, warmup_ratio=0.07),
            hf([1, 50], 1e-3, 50, warmup_ratio=1.0),
            hf([20], 1e-3, 20, warmup_steps=20),
            hf([1], 1e-3, 1),
            hf([8, 100], 1e-3, 100, warmup_ratio=0.07),
            hf([5, 8], 1e-3, 5, warmup_steps=8),
        ],
    ),
    "cosine": (
        HF_COSINE,
        [
            hf([100, 1000], 2e-4, 1000, warmup_steps=100),
            hf([60], 2e-4, 60),
            hf([3, 77], 5e-5, 77, warmup_ratio=0.03, lr_scheduler_kwargs=dict(num_cycles=1.5)),
            hf([10, 90], 5e-5, 90, warmup_steps=10, lr_scheduler_kwargs=dict(num_cycles=0.25)),
            hf([1], 5e-5, 1),
            hf([20], 5e-5, 20, warmup_steps=20),
            hf([5, 8], 5e-5, 5, warmup_steps=8),
        ],
    ),
    "cosine_with_restarts": (
        "lr * (1 + cos(pi ((num_cycles p) mod 1))) / 2, 0 from T on",
        [
            hf([10, 55, 100], 2e-4, 100, warmup_steps=10, lr_scheduler_kwargs=dict(num_cycles=2)),
            hf([33, 66, 100], 2e-4, 100, lr_scheduler_kwargs=dict(num_cycles=3)),
            hf([50], 2e-4, 50, warmup_ratio=0.1),
            hf([5, 45, 80], 2e-4, 105, warmup_steps=5, lr_scheduler_kwargs=dict(num_cycles=2.5)),
            hf([5, 8], 2e-4, 5, warmup_steps=8, lr_scheduler_kwargs=dict(num_cycles=2)),
            hf([1], 2e-4, 1),
        ],
    ),
    "cosine_with_min_lr": (
        HF_MIN,
        [
            hf([100, 1000], 2e-4, 1000, warmup_steps=100, lr_scheduler_kwargs=dict(min_lr=2e-5)),
            hf([60], 2e-4, 60, lr_scheduler_kwargs=dict(min_lr_rate=0.1)),
            hf([5, 60], 2e-4, 60, warmup_steps=5, lr_scheduler_kwargs=dict(min_lr_rate=0.0, num_cycles=1.0)),
            hf([5, 8], 2e-4, 5, warmup_steps=8, lr_scheduler_kwargs=dict(min_lr_rate=0.1)),
        ],
    ),
    "cosine_warmup_with_min_lr": (
        "as cosine_with_min_lr, but the warmup starts at 1/W and the decay is a step ahead",
        [
            hf([100, 999], 2e-4, 1000, warmup_steps=100, lr_scheduler_kwargs=dict(min_lr=2e-5)),
            hf(
                [10, 79],
                2e-4,
                80,
                warmup_steps=10,
                lr_scheduler_kwargs=dict(min_lr_rate=0.1, warmup_lr_rate=0.05),
            ),
            hf([49], 2e-4, 50, lr_scheduler_kwargs=dict(min_lr_rate=0.2)),
            hf(
                [1, 49],
                2e-4,
                50,
                warmup_steps=1,
                lr_scheduler_kwargs=dict(min_lr_rate=0.2, warmup_lr_rate=0.3),
            ),
            hf([5, 49], 2e-4, 50, warmup_steps=5, lr_scheduler_kwargs=dict(min_lr_rate=0.0, num_cycles=0.75)),
            hf([5, 8], 2e-4, 5, warmup_steps=8, lr_scheduler_kwargs=dict(min_lr_rate=0.1)),
        ],
    ),
    "polynomial": (
        "lr_end + (lr - lr_end) * (1 - p)^power after t / W, lr_end beyond T",
        [
            hf([100, 1000], 2e-4, 1000, warmup_steps=100),
            hf([60], 2e-4, 60, lr_scheduler_kwargs=dict(power=2.0, lr_end=1e-6)),
            hf([6, 60], 2e-4, 60, warmup_ratio=0.1, lr_scheduler_kwargs=dict(power=0.5, lr_end=0.0)),
            hf([5, 8], 2e-4, 5, warmup_steps=8),
            hf([5, 8], 2e-4, 5, warmup_steps=8, lr_scheduler_kwargs=dict(power=2.0, lr_end=1e-5)),
        ],
    ),
    "constant": ("lr; the warmup is ignored", [hf([100], 2e-4, 100), hf([10], 2e-4, 100, warmup_steps=10)]),
    "constant_with_warmup": (
        "lr * min(1, t / W)",
        [
            hf([10], 2e-4, 100, warmup_steps=10),
            hf([100], 2e-4, 100),
            hf([1], 2e-4, 100, warmup_ratio=0.01),
        ],
    ),
    "inverse_sqrt": (
        "lr / sqrt((t + timescale - W) / timescale) after t / W; timescale = W, or 10000 when W = 0",
        [
            hf([100, 1000], 2e-4, 1000, warmup_steps=100),
            hf([100], 2e-4, 100),
            hf([10, 100], 2e-4, 100, warmup_steps=10, lr_scheduler_kwargs=dict(timescale=50)),
        ],
    ),
    "warmup_stable_decay": (
        "warmup from min_lr_ratio to 1 (linear, cosine, 1-sqrt), 1, decay to min_lr_ratio",
        [
            hf([10, 80, 100], 2e-4, 100, warmup_steps=10, lr_scheduler_kwargs=dict(num_decay_steps=20)),
            hf(
                [10, 60, 100],
                2e-4,
                100,
                warmup_steps=10,
                lr_scheduler_kwargs=dict(
                    num_decay_steps=40, decay_type="1-sqrt", warmup_type="cosine", min_lr_ratio=0.1
                ),
            ),
            hf(
                [10, 60, 100],
                2e-4,
                100,
                warmup_ratio=0.1,
                lr_scheduler_kwargs=dict(
                    num_decay_steps=40, decay_type="linear", warmup_type="1-sqrt", min_lr_ratio=0.05
                ),
            ),
            hf(
                [5, 35, 55],
                2e-4,
                100,
                warmup_steps=5,
                lr_scheduler_kwargs=dict(num_decay_steps=20, num_stable_steps=30, num_cycles=0.75),
            ),
            hf(
                [10, 30],
                2e-4,
                30,
                lr_scheduler_kwargs=dict(num_decay_steps=20, min_lr_ratio=0.1, num_cycles=1.0),
            ),
            *(
                hf(
                    [2, 5, 8],
                    2e-4,
                    total,
                    warmup_steps=warmup,
                    lr_scheduler_kwargs=dict(num_decay_steps=decay, decay_type=kind, min_lr_ratio=low),
                )
                for total, warmup, decay, kind, low in (
                    (8, 5, 6, "cosine", 0.0),
                    (8, 5, 6, "1-sqrt", 0.1),
                    (8, 5, 8, "linear", 0.0),
                    (4, 6, 3, "cosine", 0.2),
                    (8, 2, 0, "cosine", 0.2),
                )
            ),
        ],
    ),
}

OPTAX: Cases = {
    "constant_schedule": ("value", [([10], None, dict(value=3e-4))]),
    "linear_schedule": (
        "init to end over transition_steps after transition_begin",
        [
            ([100], None, dict(init_value=0.0, end_value=1e-3, transition_steps=100)),
            ([20, 50], None, dict(init_value=1e-3, end_value=1e-5, transition_steps=30, transition_begin=20)),
            ([5], None, dict(init_value=1e-3, end_value=1e-5, transition_steps=0)),
        ],
    ),
    "polynomial_schedule": (
        "(init - end) * (1 - p)^power + end",
        [
            ([100], None, dict(init_value=1e-3, end_value=0.0, power=2.0, transition_steps=100)),
            (
                [20, 50],
                None,
                dict(init_value=1e-4, end_value=1e-3, power=0.5, transition_steps=30, transition_begin=20),
            ),
        ],
    ),
    "cosine_decay_schedule": (
        "init * ((1 - alpha) * ((1 + cos(pi p)) / 2)^exponent + alpha)",
        [
            ([100], None, dict(init_value=1e-3, decay_steps=100)),
            ([60], None, dict(init_value=1e-3, decay_steps=60, alpha=0.1, exponent=2.0)),
            ([1], None, dict(init_value=1e-3, decay_steps=1, exponent=0.5)),
        ],
    ),
    "exponential_decay": (
        "init * rate^((t - begin) / steps), floored when staircase, clipped at end",
        [
            ([100], None, dict(init_value=1e-3, transition_steps=100, decay_rate=0.5)),
            (
                [10, 20, 40],
                None,
                dict(
                    init_value=1e-3, transition_steps=10, decay_rate=0.7, transition_begin=10, staircase=True
                ),
            ),
            ([30], None, dict(init_value=1e-3, transition_steps=10, decay_rate=0.5, end_value=2e-4)),
            (
                [30],
                None,
                dict(
                    init_value=1e-4, transition_steps=10, decay_rate=2.0, end_value=5e-4, transition_begin=5
                ),
            ),
            ([5], None, dict(init_value=1e-3, transition_steps=0, decay_rate=0.5)),
        ],
    ),
    "piecewise_constant_schedule": (
        "init * the scales of the boundaries <= t",
        [
            ([10, 30], None, dict(init_value=1e-3, boundaries_and_scales={"10": 0.5, "30": 0.1})),
            ([5], None, dict(init_value=1e-3)),
        ],
    ),
    "piecewise_interpolate_schedule": (
        "linear or cosine between the values at the boundaries",
        [
            (
                [10, 30],
                None,
                dict(
                    interpolate_type="linear", init_value=1e-4, boundaries_and_scales={"10": 10.0, "30": 0.1}
                ),
            ),
            (
                [8, 40, 60],
                None,
                dict(
                    interpolate_type="cosine",
                    init_value=1e-3,
                    boundaries_and_scales={"8": 1.0, "40": 0.5, "60": 0.01},
                ),
            ),
        ],
    ),
    "linear_onecycle_schedule": (
        "linear through the points 0, pct_start T, pct_final T, T",
        [
            ([30, 85, 100], None, dict(transition_steps=100, peak_value=1e-3)),
            (
                [19, 66, 77],
                None,
                dict(transition_steps=77, peak_value=1e-3, pct_start=0.25, pct_final=0.86, div_factor=10.0),
            ),
        ],
    ),
    "cosine_onecycle_schedule": (
        "cosine through the points 0, pct_start T, T",
        [
            ([30, 100], None, dict(transition_steps=100, peak_value=1e-3)),
            (
                [19, 77],
                None,
                dict(transition_steps=77, peak_value=1e-3, pct_start=0.25, final_div_factor=100.0),
            ),
        ],
    ),
    "warmup_constant_schedule": (
        "linear from init to peak, then peak (init throughout when warmup_steps is 0)",
        [
            ([10], None, dict(init_value=0.0, peak_value=1e-3, warmup_steps=10)),
            ([3], None, dict(init_value=1e-4, peak_value=1e-3, warmup_steps=0)),
        ],
    ),
    "warmup_cosine_decay_schedule": (
        "linear to peak at W, cosine to end at decay_steps, which includes W",
        [
            ([10, 100], None, dict(init_value=0.0, peak_value=1e-3, warmup_steps=10, decay_steps=100)),
            (
                [5, 60],
                None,
                dict(
                    init_value=1e-4,
                    peak_value=1e-3,
                    warmup_steps=5,
                    decay_steps=60,
                    end_value=1e-5,
                    exponent=2.0,
                ),
            ),
            ([60], None, dict(init_value=0.0, peak_value=1e-3, warmup_steps=0, decay_steps=60)),
        ],
    ),
    "warmup_exponential_decay_schedule": (
        "linear to peak at W, then exponential_decay",
        [
            (
                [10, 100],
                None,
                dict(init_value=0.0, peak_value=1e-3, warmup_steps=10, transition_steps=50, decay_rate=0.5),
            ),
            (
                [10, 25, 45],
                None,
                dict(
                    init_value=0.0,
                    peak_value=1e-3,
                    warmup_steps=10,
                    transition_steps=15,
                    decay_rate=0.5,
                    transition_begin=5,
                    staircase=True,
                    end_value=1e-4,
                ),
            ),
        ],
    ),
    "sgdr_schedule": (
        "warmup_cosine_decay_schedules one after another",
        [
            (
                [5, 50, 55, 150],
                None,
                dict(
                    cosine_kwargs=[
                        dict(init_value=0.0, peak_value=1e-3, warmup_steps=5, decay_steps=50),
                        dict(
                            init_value=0.0, peak_value=5e-4, warmup_steps=5, decay_steps=100, end_value=1e-5
                        ),
                    ]
                ),
            ),
        ],
    ),
}

TIMM_CLASSES = {
    "cosine": "CosineLRScheduler",
    "tanh": "TanhLRScheduler",
    "poly": "PolyLRScheduler",
    "step": "StepLRScheduler",
    "multistep": "MultiStepLRScheduler",
    "wsd": "WSDLRScheduler",
}
TIMM: Cases = {
    "cosine": (
        "lr_min + (lr g^i - lr_min) * (1 + cos(pi (t_cur / t_i)^k)) / 2; t from 0 without warmup_prefix",
        [
            ([100], None, dict(lr=1e-3, t_initial=100)),
            ([10, 100], None, dict(lr=1e-3, t_initial=100, warmup_t=10, warmup_lr_init=1e-6, lr_min=1e-5)),
            ([10, 110], None, dict(lr=1e-3, t_initial=100, warmup_t=10, warmup_prefix=True)),
            (
                [10, 30, 70],
                None,
                dict(lr=1e-3, t_initial=10, cycle_mul=2.0, cycle_decay=0.5, cycle_limit=3, lr_min=1e-5),
            ),
            (
                [5, 45, 85],
                None,
                dict(lr=1e-3, t_initial=40, cycle_limit=2, k_decay=1.5, warmup_t=5, warmup_prefix=True),
            ),
        ],
    ),
    "tanh": (
        "lr_min + (lr g^i - lr_min) * (1 - tanh(lb (1 - p) + ub p)) / 2",
        [
            ([100], None, dict(lr=1e-3, t_initial=100)),
            ([10, 100], None, dict(lr=1e-3, t_initial=100, lb=-6.0, ub=4.0, warmup_t=10, lr_min=1e-5)),
            (
                [5, 45, 85],
                None,
                dict(lr=1e-3, t_initial=40, cycle_limit=2, cycle_decay=0.5, warmup_t=5, warmup_prefix=True),
            ),
        ],
    ),
    "poly": (
        "lr_min + (lr g^i - lr_min) * (1 - (t_cur / t_i)^k)^power",
        [
            ([100], None, dict(lr=1e-3, t_initial=100)),
            ([10, 100], None, dict(lr=1e-3, t_initial=100, power=2.0, warmup_t=10, lr_min=1e-5, k_decay=2.0)),
            ([10, 30, 70], None, dict(lr=1e-3, t_initial=10, cycle_mul=2.0, cycle_decay=0.5, cycle_limit=3)),
        ],
    ),
    "step": (
        "lr * decay_rate^((t - W) // decay_t)",
        [
            ([30, 60], None, dict(lr=1e-3, decay_t=30, decay_rate=0.1)),
            ([5, 15, 25], None, dict(lr=1e-3, decay_t=10, decay_rate=0.5, warmup_t=5)),
            ([5, 10, 20], None, dict(lr=1e-3, decay_t=10, decay_rate=0.5, warmup_t=5, warmup_prefix=False)),
        ],
    ),
    "multistep": (
        "lr * decay_rate^(number of milestones <= t - W + 1)",
        [
            ([30, 60], None, dict(lr=1e-3, decay_t=[30, 60], decay_rate=0.1)),
            ([5, 15, 25], None, dict(lr=1e-3, decay_t=[10, 20], decay_rate=0.5, warmup_t=5)),
            (
                [5, 10, 20],
                None,
                dict(lr=1e-3, decay_t=[3, 10, 20], decay_rate=0.5, warmup_t=5, warmup_prefix=False),
            ),
        ],
    ),
    "wsd": (
        "warmup, lr * stable(t - W), decay over the last decay_t of t_initial, which excludes W",
        [
            ([10, 90, 110], None, dict(lr=1e-3, t_initial=100, decay_t=20, warmup_t=10)),
            (
                [60, 100],
                None,
                dict(lr=1e-3, t_initial=100, decay_t=40, lr_min=1e-5, decay_fn="exp", decay_ratio=0.05),
            ),
            (
                [5, 85, 105],
                None,
                dict(lr=1e-3, t_initial=100, decay_t=20, warmup_t=5, stable_fn="rsqrt", decay_fn="cosine"),
            ),
            (
                [5, 85, 105],
                None,
                dict(
                    lr=1e-3,
                    t_initial=100,
                    decay_t=20,
                    warmup_t=5,
                    stable_fn="power",
                    stable_power=0.3,
                    stable_timescale=30.0,
                    decay_fn="power",
                    decay_power=2.0,
                    lr_min=4e-4,
                ),
            ),
            ([50], None, dict(lr=1e-3, t_initial=50, decay_t=50, decay_fn="linear")),
        ],
    ),
}

KERAS: Cases = {
    "ExponentialDecay": (
        "lr * rate^(t / steps), floored when staircase",
        [
            ([100], None, dict(initial_learning_rate=1e-3, decay_steps=100, decay_rate=0.5)),
            (
                [10, 20],
                None,
                dict(initial_learning_rate=1e-3, decay_steps=10, decay_rate=0.9, staircase=True),
            ),
        ],
    ),
    "PiecewiseConstantDecay": (
        "values[number of boundaries < t]",
        [
            ([10, 30], None, dict(boundaries=[10, 30], values=[1e-3, 5e-4, 1e-4])),
            ([1], None, dict(boundaries=[1], values=[1e-3, 5e-4])),
        ],
    ),
    "PolynomialDecay": (
        "(lr - end) * (1 - t / n)^power + end; cycle: n = steps * ceil(t / steps)",
        [
            ([100], None, dict(initial_learning_rate=1e-3, decay_steps=100)),
            ([60], None, dict(initial_learning_rate=1e-3, decay_steps=60, end_learning_rate=0.0, power=0.5)),
            (
                [20, 40, 60],
                None,
                dict(
                    initial_learning_rate=1e-3, decay_steps=20, end_learning_rate=1e-5, power=2.0, cycle=True
                ),
            ),
        ],
    ),
    "InverseTimeDecay": (
        "lr / (1 + rate * t / steps), floored when staircase",
        [
            ([100], None, dict(initial_learning_rate=1e-3, decay_steps=100, decay_rate=0.5)),
            (
                [10, 20],
                None,
                dict(initial_learning_rate=1e-3, decay_steps=10, decay_rate=2.0, staircase=True),
            ),
        ],
    ),
    "CosineDecay": (
        "lr * ((1 - alpha) * (1 + cos(pi p)) / 2 + alpha), after a warmup that decay_steps excludes",
        [
            ([100], None, dict(initial_learning_rate=1e-3, decay_steps=100)),
            (
                [10, 110],
                None,
                dict(
                    initial_learning_rate=0.0, decay_steps=100, alpha=0.1, warmup_target=1e-3, warmup_steps=10
                ),
            ),
            (
                [50],
                None,
                dict(initial_learning_rate=1e-4, decay_steps=50, warmup_target=1e-3, warmup_steps=0),
            ),
            ([50], None, dict(initial_learning_rate=1e-4, decay_steps=50, warmup_steps=20)),
        ],
    ),
    "CosineDecayRestarts": (
        "lr * ((1 - alpha) * m_mul^i * (1 + cos(pi p_i)) / 2 + alpha), cycle i of steps * t_mul^i",
        [
            ([21, 63, 147], None, dict(initial_learning_rate=1e-3, first_decay_steps=21)),
            (
                [20, 40, 60],
                None,
                dict(initial_learning_rate=1e-3, first_decay_steps=20, t_mul=1.0, m_mul=0.5, alpha=0.1),
            ),
            ([33, 83], None, dict(initial_learning_rate=1e-3, first_decay_steps=33, t_mul=1.5, m_mul=0.9)),
        ],
    ),
}

FASTAI: Cases = {
    "fit_one_cycle": (
        "cosine from lr_max/div to lr_max at pct_start T, to lr_max/div_final at T",
        [
            ([25, 100], 100, dict(steps=100, lr_max=1e-3, div=25.0, div_final=1e5, pct_start=0.25)),
            ([25, 77], 77, dict(steps=77, lr_max=1e-3, div=10.0, div_final=100.0, pct_start=0.33)),
        ],
    ),
    "fit_flat_cos": (
        "lr until pct_start T, cosine to lr/div_final at T",
        [
            ([75, 100], 100, dict(steps=100, lr=1e-3, div_final=1e5, pct_start=0.75)),
            ([37, 53], 53, dict(steps=53, lr=1e-3, div_final=10.0, pct_start=0.7)),
        ],
    ),
    "fit_sgdr": (
        "cosine from lr_max to 0 in each of n_cycles cycles, cycle i of cycle_len * cycle_mult^i",
        [
            ([10, 30, 70], 69, dict(n_cycles=3, cycle_len=10, lr_max=1e-3, cycle_mult=2)),
            ([8, 40], 39, dict(n_cycles=2, cycle_len=8, lr_max=1e-3, cycle_mult=4)),
        ],
    ),
}


def fastai_total(name: str, arguments: dict[str, Any]) -> int:
    if name != "fit_sgdr":
        return int(arguments["steps"])
    first, mult, cycles = (int(arguments[name]) for name in ("cycle_len", "cycle_mult", "n_cycles"))
    return sum(first * mult**i for i in range(cycles))


MLX: Cases = {
    "exponential_decay": (
        "init * decay_rate^t",
        [
            ([100], None, dict(init=1e-3, decay_rate=0.99)),
            ([9], None, dict(init=1e-3, decay_rate=1.1)),
        ],
    ),
    "step_decay": (
        "init * decay_rate^(t // step_size)",
        [([10, 50], None, dict(init=1e-3, decay_rate=0.9, step_size=10))],
    ),
    "cosine_decay": (
        "end + (init - end) * (1 + cos(pi min(t, n) / n)) / 2",
        [
            ([100], None, dict(init=1e-3, decay_steps=100)),
            ([37], None, dict(init=1e-3, decay_steps=37, end=1e-5)),
            ([1], None, dict(init=1e-3, decay_steps=1, end=2e-3)),
        ],
    ),
    "linear_schedule": (
        "init + (end - init) * min(t, n) / n",
        [
            ([100], None, dict(init=0.0, end=1e-3, steps=100)),
            ([37], None, dict(init=1e-3, end=1e-5, steps=37)),
        ],
    ),
    "join_schedules": (
        "schedule i gets t - boundaries[i - 1]",
        [
            (
                [10, 90],
                None,
                dict(
                    boundaries=[10],
                    schedules=[
                        dict(name="linear_schedule", init=0.0, end=1e-3, steps=10),
                        dict(name="cosine_decay", init=1e-3, decay_steps=80),
                    ],
                ),
            ),
            (
                [10, 40, 70],
                None,
                dict(
                    boundaries=[10, 40],
                    schedules=[
                        dict(name="linear_schedule", init=0.0, end=1e-3, steps=7),
                        dict(name="exponential_decay", init=1e-3, decay_rate=0.99),
                        dict(name="step_decay", init=1e-3, decay_rate=0.5, step_size=30),
                    ],
                ),
            ),
        ],
    ),
}

MLX_LM: Cases = {
    "cosine_decay": (
        "mlx's, from warmup + 1 on; before, linear from warmup_init to arguments[0]",
        [
            ([100, 1101], None, dict(arguments=[1e-5, 1000, 1e-6], warmup=100)),
            ([50], None, dict(arguments=[1e-5, 50])),
            ([10, 61], None, dict(arguments=[1e-5, 50], warmup=10, warmup_init=1e-7)),
        ],
    ),
    "linear_schedule": (
        "the same; arguments[0] is the warmup's target, so from 0 the warmup stays at 0",
        [
            ([4, 5, 15], None, dict(arguments=[0.0, 1e-3, 10], warmup=4)),
            ([4, 5, 25], None, dict(arguments=[1e-3, 0.0, 20], warmup=4)),
        ],
    ),
    "exponential_decay": ("the same", [([5, 50], None, dict(arguments=[1e-3, 0.95], warmup=5))]),
    "step_decay": ("the same", [([5, 16, 26], None, dict(arguments=[1e-3, 0.5, 10], warmup=5))]),
}

CASES: dict[str, Cases] = {
    "torch": TORCH,
    "hf": HF,
    "optax": OPTAX,
    "timm": TIMM,
    "keras": KERAS,
    "fastai": FASTAI,
    "mlx": MLX,
    "mlx_lm": MLX_LM,
}

# Losses as a controller sees them: falling, stuck, noisy, and an accuracy for mode="max".
CURVES: dict[str, list[float]] = {
    "falls_then_sticks": [round(3.0 * 0.8**k, 6) for k in range(12)] + [0.26] * 28,
    "bumpy": [round(2.0 - 0.03 * k + 0.4 * ((k * 7) % 5) / 5, 6) for k in range(40)],
    "climbs_then_sticks": [round(0.9 * (1 - 0.7**k), 6) for k in range(40)],
    "better_each_time": [round(3.0 - 0.05 * k, 6) for k in range(40)],
}
INFINITY = float("inf")
# JSON has no infinity and no NaN; they are written as strings, which float() can read.
CURVES["infinite_first"] = [INFINITY, INFINITY, 3.0, 2.0, 1.0, INFINITY, 0.9, 0.9, 0.9, 0.9, 0.8, 0.8]
CURVES["nan_first"] = [float("nan"), 3.0, float("nan"), 2.0, 2.0, 2.0, 2.0, 1.0, 0.9, 0.8, 0.7]


def _ties() -> list[tuple[str, str, dict[str, Any]]]:
    """Metrics and thresholds on the same grid of hundredths, so that many improvements equal the threshold exactly."""
    draw, cases = random.Random(22), []
    for number in range(60):
        curve = f"ties_{number}"
        CURVES[curve] = [round(draw.choice((0.5, 1.0, 2.0)) + draw.randint(-8, 8) / 10, 2) for _ in range(24)]
        common = dict(
            mode=draw.choice(("min", "max")),
            threshold=draw.choice((0.0, 0.1, 0.2, 0.3, 0.05)),
            threshold_mode=draw.choice(("rel", "abs")),
            patience=draw.choice((0, 1)),
            cooldown=draw.choice((0, 1)),
        )
        greedy = dict(lr=1e-2, factor=0.8, min_lr=1e-4, max_lr=1.0, smooth=draw.random() < 0.4, window_size=3)
        cases.append(("greedy", curve, greedy | common))
        cases.append(("plateau", curve, dict(lr=1e-2, factor=0.8) | common))
    return cases


ADAPTIVE: list[tuple[str, str, dict[str, Any]]] = [
    ("plateau", "falls_then_sticks", dict(lr=2e-4, patience=3, factor=0.5)),
    ("plateau", "bumpy", dict(lr=1e-2, patience=2, factor=0.5, cooldown=2, min_lr=1e-3)),
    (
        "plateau",
        "climbs_then_sticks",
        dict(lr=2e-4, patience=4, mode="max", threshold=0.01, threshold_mode="abs"),
    ),
    ("plateau", "falls_then_sticks", dict(lr=1e-7, patience=1, factor=0.1, eps=1e-8)),
    ("plateau", "bumpy", dict(lr=2e-4, patience=0, factor=0.9, mode="max")),
    ("greedy", "better_each_time", dict(lr=2e-4, patience=3, min_lr=1e-6, max_lr=4e-4, factor=0.8)),
    (
        "greedy",
        "falls_then_sticks",
        dict(lr=2e-4, patience=2, min_lr=1e-5, max_lr=1e-3, factor=0.7, cooldown=2, warmup=1),
    ),
    ("greedy", "bumpy", dict(lr=2e-4, patience=1, min_lr=1e-5, max_lr=1e-3, smooth=True, window_size=5)),
    (
        "greedy",
        "falls_then_sticks",
        dict(lr=2e-4, patience=1, min_lr=1.5e-4, max_lr=1e-3, factor=0.5, reset_start=2),
    ),
    (
        "greedy",
        "climbs_then_sticks",
        dict(lr=2e-4, patience=2, mode="max", threshold_mode="rel", min_lr=1e-6, max_lr=1.0),
    ),
    ("plateau", "infinite_first", dict(lr=2e-4, patience=2, factor=0.5)),
    ("plateau", "infinite_first", dict(lr=2e-4, patience=1, factor=0.5, threshold_mode="abs")),
    ("plateau", "nan_first", dict(lr=2e-4, patience=2, factor=0.5)),
    ("greedy", "infinite_first", dict(lr=2e-4, patience=2, min_lr=1e-6, max_lr=4e-4, factor=0.8)),
    ("greedy", "nan_first", dict(lr=2e-4, patience=2, min_lr=1e-6, max_lr=4e-4, factor=0.8)),
    *_ties(),
]
