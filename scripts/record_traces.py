"""Record the values of other libraries' own schedules, for the tests of our `compat` names.

Calls each library's own code, in float64 (MLX in its float32), with the parameter sets of ``scripts/trace_cases.py``.
Writes the values to ``tests/golden/<peer>.json``, with the versions of the libraries. Imports nothing from mlxsched.

    python scripts/record_traces.py                 # all peers
    python scripts/record_traces.py torch keras     # selected peers

Needs these packages, none of which mlxsched itself needs; a separate virtual environment is best:

    torch transformers accelerate optax jax keras "mlx[cpu]" mlx-lm
    timm fastai fastcore            (--no-deps is enough: only their schedule modules are loaded)
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import math
import os
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import trace_cases

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
Values = list[float]

os.environ["KERAS_BACKEND"] = "torch"  # the backend that can compute in float64
os.environ["JAX_ENABLE_X64"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
warnings.filterwarnings("ignore")


def sample_steps(marks: Sequence[int], last: int | None) -> list[int]:
    """Both sides of each mark, a few steps between, and some beyond the last unless the peer refuses them."""
    end = last if last is not None else 2 * max(marks) + 3
    near = {m + d for m in marks for d in (-1, 0, 1)}
    spread = {round(end * k / 12) for k in range(13)}
    return sorted(s for s in near | spread | {0, 1, 2} if 0 <= s <= end)


def optimizer_at(rate: float) -> Any:
    import torch

    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate, momentum=0.9)


def stepped(optimizer: Any, scheduler: Any, steps: list[int]) -> Values:
    """The rate after each number of ``scheduler.step()`` calls: torch's schedules have state; they aren't functions of the step."""
    rates = []
    for _ in range(steps[-1] + 1):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        if len(rates) <= steps[-1]:
            optimizer.step()
            scheduler.step()
    return [rates[s] for s in steps]


def torch_values(name: str, arguments: dict[str, Any], steps: list[int]) -> Values:
    from torch.optim import lr_scheduler

    optimizer = optimizer_at(arguments.get("lr", 1.0))
    rest = {key: value for key, value in arguments.items() if key != "lr"}
    return stepped(optimizer, getattr(lr_scheduler, name)(optimizer, **rest), steps)


def hf_values(name: str, arguments: dict[str, Any], steps: list[int]) -> Values:
    """``warmup_ratio`` goes where Trainer puts it: into ``warmup_steps``, read by ``get_warmup_steps``."""
    from transformers import TrainingArguments, get_scheduler

    warmup = arguments.get("warmup_steps", 0) or arguments.get("warmup_ratio", 0.0)
    total = arguments["num_training_steps"]
    warmup_steps = TrainingArguments.get_warmup_steps(types.SimpleNamespace(warmup_steps=warmup), total)
    optimizer = optimizer_at(arguments["learning_rate"])
    kwargs = arguments.get("lr_scheduler_kwargs")
    return stepped(optimizer, get_scheduler(name, optimizer, warmup_steps, total, kwargs), steps)


def optax_values(name: str, arguments: dict[str, Any], steps: list[int]) -> Values:
    import optax

    if "boundaries_and_scales" in arguments:
        pairs = arguments["boundaries_and_scales"]
        arguments = arguments | {"boundaries_and_scales": {int(k): v for k, v in pairs.items()}}
    schedule = getattr(optax, name)(**arguments)
    return [float(schedule(step)) for step in steps]


def timm_values(name: str, arguments: dict[str, Any], steps: list[int]) -> Values:
    if "timm" not in sys.modules:  # timm's own __init__ needs torchvision; its schedulers don't
        shell = types.ModuleType("timm")
        shell.__path__ = list(importlib.util.find_spec("timm").submodule_search_locations)
        sys.modules["timm"] = shell
    from timm import scheduler as schedulers

    optimizer = optimizer_at(arguments["lr"])
    rest = {key: value for key, value in arguments.items() if key != "lr"}
    scheduler = getattr(schedulers, trace_cases.TIMM_CLASSES[name])(optimizer, t_in_epochs=False, **rest)
    values = []
    for step in steps:
        scheduler.step_update(step)
        values.append(float(optimizer.param_groups[0]["lr"]))
    return values


def keras_values(name: str, arguments: dict[str, Any], steps: list[int]) -> Values:
    import keras

    keras.config.set_floatx("float64")
    schedule = getattr(keras.optimizers.schedules, name)(**arguments)
    return [float(schedule(step)) for step in steps]


def fastai_functions() -> dict[str, Any]:
    """fastai's annealing functions, compiled from its source file: the package needs torchvision and pandas."""
    import functools

    import torch
    from fastcore.foundation import L

    torch.set_default_dtype(torch.float64)
    source = Path(importlib.util.find_spec("fastai").submodule_search_locations[0], "callback", "schedule.py")
    wanted = {"_Annealer", "annealer", "sched_cos", "SchedCos", "combine_scheds", "combined_cos"}
    nodes = [n for n in ast.parse(source.read_text()).body if getattr(n, "name", None) in wanted]
    space: dict[str, Any] = {"math": math, "torch": torch, "L": L, "functools": functools}
    space |= {"tensor": lambda items: torch.tensor(list(items)), "store_attr": store_attributes}
    exec(compile(ast.Module(nodes, []), str(source), "exec"), space)  # noqa: S102 - the peer's own source
    return space


def store_attributes(names: str) -> None:
    """What fastcore's ``store_attr`` does for a class without decorations."""
    caller = sys._getframe(1).f_locals
    for name in names.split(","):
        setattr(caller["self"], name, caller[name])


def fastai_values(name: str, arguments: dict[str, Any], steps: list[int]) -> Values:
    """The schedule that ``Learner.fit_one_cycle`` and similar methods pass to ``ParamScheduler``, by position."""
    peer, a = fastai_functions(), arguments
    if name == "fit_one_cycle":
        schedule = peer["combined_cos"](
            a["pct_start"], a["lr_max"] / a["div"], a["lr_max"], a["lr_max"] / a["div_final"]
        )
    elif name == "fit_flat_cos":
        schedule = peer["combined_cos"](a["pct_start"], a["lr"], a["lr"], a["lr"] / a["div_final"])
    else:
        lengths = [a["cycle_len"] * a["cycle_mult"] ** i for i in range(a["n_cycles"])]
        cycles = [peer["SchedCos"](a["lr_max"], 0) for _ in lengths]
        schedule = peer["combine_scheds"]([n / sum(lengths) for n in lengths], cycles)
    return [float(schedule(step / trace_cases.fastai_total(name, a))) for step in steps]


def on_mlx_steps(schedule: Callable[[Any], Any], steps: list[int]) -> Values:
    """What MLX gives for the steps of its optimizers: uint64 in, float32 out, with its rounding."""
    import mlx.core as mx

    values = (schedule(mx.array(step, mx.uint64)) for step in steps)
    return [float(value.item() if isinstance(value, mx.array) else value) for value in values]


def mlx_values(name: str, arguments: dict[str, Any], steps: list[int]) -> Values:
    return on_mlx_steps(build_mlx(name, **arguments), steps)


def build_mlx(name: str, **arguments: Any) -> Callable[[Any], Any]:
    import mlx.core as mx
    from mlx.optimizers import schedulers

    mx.set_default_device(mx.cpu)
    if name == "join_schedules":
        parts = [build_mlx(**part) for part in arguments["schedules"]]
        return schedulers.join_schedules(parts, arguments["boundaries"])
    return getattr(schedulers, name)(**arguments)


def mlx_lm_values(name: str, arguments: dict[str, Any], steps: list[int]) -> Values:
    import mlx.core as mx
    from mlx_lm.tuner.utils import build_schedule

    mx.set_default_device(mx.cpu)
    return on_mlx_steps(build_schedule({"name": name, **arguments}), steps)


def adaptive_values(name: str, arguments: dict[str, Any], metrics: list[float]) -> Values:
    """The rate after each observation, the first value being the rate before any."""
    if name == "greedy":
        from transformers.optimization import GreedyLR as Controller
    else:
        from torch.optim.lr_scheduler import ReduceLROnPlateau as Controller
    optimizer = optimizer_at(arguments["lr"])
    controller = Controller(optimizer, **{key: value for key, value in arguments.items() if key != "lr"})
    values = [arguments["lr"]]
    for metric in metrics:
        controller.step(metric)
        values.append(float(optimizer.param_groups[0]["lr"]))
    return values


PEERS: dict[str, tuple[Callable[..., Values], list[str]]] = {
    "torch": (torch_values, ["torch"]),
    "hf": (hf_values, ["transformers", "torch"]),
    "optax": (optax_values, ["optax", "jax"]),
    "timm": (timm_values, ["timm", "torch"]),
    "keras": (keras_values, ["keras"]),
    "fastai": (fastai_values, ["fastai", "torch"]),
    "mlx": (mlx_values, ["mlx"]),
    "mlx_lm": (mlx_lm_values, ["mlx-lm", "mlx"]),
}


def record(peer: str) -> dict[str, Any]:
    values_of, packages = PEERS[peer]
    traces = []
    for name, (_, cases) in trace_cases.CASES[peer].items():
        for marks, last, arguments in cases:
            steps = sample_steps(marks, last)
            values = values_of(name, arguments, steps)
            traces.append({"name": name, "arguments": arguments, "steps": steps, "values": values})
    formulas = {name: formula for name, (formula, _) in trace_cases.CASES[peer].items()}
    return {"versions": versions(packages), "formulas": formulas, "traces": traces}


def record_adaptive() -> dict[str, Any]:
    traces = []
    for name, curve, arguments in trace_cases.ADAPTIVE:
        values = adaptive_values(name, arguments, trace_cases.CURVES[curve])
        traces.append({"name": name, "arguments": arguments, "curve": curve, "values": values})
    curves = {
        name: [value if math.isfinite(value) else str(value) for value in curve]
        for name, curve in trace_cases.CURVES.items()
    }
    return {"versions": versions(["torch", "transformers"]), "curves": curves, "traces": traces}


def versions(packages: list[str]) -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in packages}


def write(peer: str, golden: dict[str, Any]) -> None:
    """One trace per line: compact, and a changed trace is one changed line in a diff."""
    traces = ",\n".join("  " + json.dumps(trace) for trace in golden.pop("traces"))
    head = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in golden.items())
    path = GOLDEN / f"{peer}.json"
    path.write_text(f'{{\n{head} "traces": [\n{traces}\n ]\n}}\n')
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB")


def main(names: list[str]) -> None:
    for peer in names or [*PEERS, "adaptive"]:
        write(peer, record_adaptive() if peer == "adaptive" else record(peer))


if __name__ == "__main__":
    main(sys.argv[1:])
