"""``mlxsched env``: versions, device, memory, the BLAS in use, and how several machines can be connected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.output import note, print_json, table, warn

if TYPE_CHECKING:
    from mlxsched.platform.machine import Machine


@click.command()
@click.option(
    "--tune",
    is_flag=True,
    help="Time the optimizations of training on this device, and store the fastest for later runs.",
)
@click.option("--preset", metavar="NAME", help="With --tune: a preset. [laptop]")
@click.option("-c", "--config", metavar="FILE", help="With --tune: a YAML file.")
@click.option("--model", metavar="MODEL", help="With --tune: another model.")
@click.option("--data", metavar="DATA", help="With --tune: other data.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(tune: bool, as_json: bool, **training: str | None) -> None:
    """Show versions, device and memory, and measure how fast this machine multiplies matrices.

    With --tune, also time alternative ways to compute a training step, and store the choice in the cache.

    \b
    Examples:
      mlxsched env
      mlxsched env --tune
      mlxsched env --tune --preset lora --model Qwen/Qwen3-0.6B --data my/folder
    """
    if not tune and any(training.values()):
        raise click.UsageError("--preset, --config, --model and --data need --tune.")
    from mlxsched.platform.machine import matmul_gflops

    speed = round(matmul_gflops(), 1)  # first: a small model is loaded and timed with one thread
    found: dict[str, Any] | None = None
    if tune:
        from mlxsched.cli.tune_view import show_tuning, tuning_of

        found = tuning_of(**training)
    _report(as_json, speed, found)
    if found is not None and not as_json:
        show_tuning(found)


def _report(as_json: bool, speed: float, tuning: dict[str, Any] | None) -> None:
    from dataclasses import asdict

    from mlxsched.platform.blas import ADVICE
    from mlxsched.platform.machine import RETRACING, describe, keeps_compiled
    from mlxsched.platform.openblas import PACKAGE, fault
    from mlxsched.platform.precision import TF32, multiplies_in_tf32

    machine = describe()
    on_cpu = machine.device == "cpu"
    advice = ADVICE if machine.blas == "reference" and on_cpu else None
    compiles, tf32 = keeps_compiled(), multiplies_in_tf32()
    ours = machine.blas == "accelerate" or PACKAGE in machine.blas_library
    reason = fault() if on_cpu and not ours else None
    if as_json:
        measured = {"matmul_gflops": speed, "keeps_compiled": compiles, "tf32": tf32}
        timed = {} if tuning is None else {"tuning": tuning}
        print_json(asdict(machine) | measured | {"blas_fault": reason, "advice": advice} | timed)
        return
    table(
        [
            *machine.versions.items(),
            ("system", machine.system),
            ("device", f"{machine.device} ({machine.chip}), {machine.cores} cores"),
            ("memory", _memory(machine)),
            ("blas", f"{machine.blas} ({machine.blas_library})" if machine.blas_library else machine.blas),
            ("distributed", ", ".join(machine.distributed) or "none"),
            ("matmul", f"{speed:g} GFLOP/s in {'TF32' if tf32 else 'float32'}"),
        ]
    )
    if reason:
        warn(f"The OpenBLAS from PyPI is not in use: {reason}.")
    if advice:
        warn(advice)
    if tf32:
        note(TF32)
    if not compiles:
        warn(f"{RETRACING}.")


def _memory(machine: Machine) -> str:
    found, gpu = f"{machine.memory_gb:g} GB", machine.gpu_memory_gb
    if gpu is None:
        return found
    shared = machine.system.startswith("Darwin")
    return (
        f"{found}, of which the GPU may take {gpu:g} GB" if shared else f"{found}, and {gpu:g} GB on the GPU"
    )
