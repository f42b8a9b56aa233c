"""An example for each of the other libraries' names, with sensible numbers; our own schedules have theirs in their
docstrings."""

from __future__ import annotations

ARGUMENTS: dict[str, str] = {
    "hf.linear": "2e-4, 1000, 100",
    "hf.cosine": "2e-4, 1000, 100",
    "hf.cosine_with_restarts": "2e-4, 1000, 100, num_cycles=3",
    "hf.cosine_with_min_lr": "2e-4, 1000, 100, min_lr=2e-5",
    "hf.cosine_warmup_with_min_lr": "2e-4, 1000, 100, min_lr=2e-5",
    "hf.polynomial": "2e-4, 1000, 100, power=2.0",
    "hf.constant": "2e-4",
    "hf.constant_with_warmup": "2e-4, num_warmup_steps=100",
    "hf.inverse_sqrt": "2e-4, num_warmup_steps=100",
    "hf.warmup_stable_decay": "2e-4, num_training_steps=1000, num_warmup_steps=100, num_decay_steps=200",
    "hf.reduce_lr_on_plateau": "2e-4",
    "hf.greedy": "2e-4, min_lr=1e-6",
    "torch.StepLR": "1e-3, step_size=300",
    "torch.MultiStepLR": "1e-3, milestones=[300, 600]",
    "torch.ConstantLR": "1e-3, total_iters=100",
    "torch.LinearLR": "1e-3, total_iters=100",
    "torch.ExponentialLR": "1e-3, gamma=0.995",
    "torch.PolynomialLR": "1e-3, total_iters=1000, power=2.0",
    "torch.CosineAnnealingLR": "1e-3, T_max=1000",
    "torch.CosineAnnealingWarmRestarts": "1e-3, T_0=100, T_mult=2",
    "torch.CyclicLR": "1e-4, 1e-3, step_size_up=100",
    "torch.OneCycleLR": "1e-3, total_steps=1000",
    "torch.ReduceLROnPlateau": "1e-3",
    "optax.constant_schedule": "1e-3",
    "optax.linear_schedule": "1e-3, 0.0, 1000",
    "optax.polynomial_schedule": "1e-3, 0.0, 2.0, 1000",
    "optax.cosine_decay_schedule": "1e-3, 1000",
    "optax.exponential_decay": "1e-3, 100, 0.5, staircase=True",
    "optax.piecewise_constant_schedule": "1e-3, [[300, 0.3], [600, 0.1]]",
    "optax.piecewise_interpolate_schedule": "'cosine', 1e-3, [[300, 0.3], [600, 0.1]]",
    "optax.linear_onecycle_schedule": "1000, 1e-3",
    "optax.cosine_onecycle_schedule": "1000, 1e-3",
    "optax.warmup_constant_schedule": "0.0, 1e-3, 100",
    "optax.warmup_cosine_decay_schedule": "0.0, 1e-3, 100, 1000",
    "optax.warmup_exponential_decay_schedule": "0.0, 1e-3, 100, 100, 0.7",
    "timm.cosine": "1e-3, 1000",
    "timm.tanh": "1e-3, 1000",
    "timm.poly": "1e-3, 1000",
    "timm.step": "1e-3, 300, decay_rate=0.3",
    "timm.multistep": "1e-3, [300, 600], decay_rate=0.3",
    "timm.wsd": "1e-3, 1000, 200",
    "timm.plateau": "1e-3",
    "keras.ExponentialDecay": "1e-3, 100, 0.7",
    "keras.PiecewiseConstantDecay": "[300, 600], [1e-3, 3e-4, 1e-4]",
    "keras.PolynomialDecay": "1e-3, 1000, power=2.0",
    "keras.InverseTimeDecay": "1e-3, 100, 0.5",
    "keras.CosineDecay": "1e-4, 900, warmup_target=1e-3, warmup_steps=100",
    "keras.CosineDecayRestarts": "1e-3, 100",
    "fastai.fit_one_cycle": "1000, 1e-3",
    "fastai.fit_flat_cos": "1000, 1e-3",
    "fastai.fit_sgdr": "3, 100, 1e-3",
}


def alias_spec(name: str) -> str:
    """The example of another library's name as a spec; empty if there is none.

    >>> alias_spec("torch.OneCycleLR")
    'torch.OneCycleLR(1e-3, total_steps=1000)'
    """
    return f"{name}({ARGUMENTS[name]})" if name in ARGUMENTS else ""
