"""``mlxsched env``: versions, device, memory, the BLAS in use, and how several machines can be connected."""

from __future__ import annotations

import click

from mlxsched.cli.output import print_json, table, warn


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Show versions, device and memory, and measure how fast this machine multiplies matrices.

    \b
    Example:
      mlxsched env
    """
    from dataclasses import asdict

    from mlxsched.platform.blas import ADVICE
    from mlxsched.platform.machine import RETRACING, describe, keeps_compiled, matmul_gflops
    from mlxsched.platform.openblas import PACKAGE, fault

    machine = describe()
    speed = round(matmul_gflops(), 1)
    advice = ADVICE if machine.blas == "reference" and machine.device == "cpu" else None
    compiles = keeps_compiled()
    reason = fault() if machine.blas != "accelerate" and PACKAGE not in machine.blas_library else None
    if as_json:
        measured = {"matmul_gflops": speed, "keeps_compiled": compiles}
        print_json(asdict(machine) | measured | {"blas_fault": reason, "advice": advice})
        return
    table(
        [
            *machine.versions.items(),
            ("system", machine.system),
            ("device", f"{machine.device} ({machine.chip}), {machine.cores} cores"),
            ("memory", f"{machine.memory_gb:g} GB"),
            ("blas", f"{machine.blas} ({machine.blas_library})" if machine.blas_library else machine.blas),
            ("distributed", ", ".join(machine.distributed) or "none"),
            ("matmul", f"{speed:g} GFLOP/s in float32"),
        ]
    )
    if reason:
        warn(f"The OpenBLAS from PyPI is not in use: {reason}.")
    if advice:
        warn(advice)
    if not compiles:
        warn(f"{RETRACING}.")
