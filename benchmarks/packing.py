"""Sequence packing compared with padded micro-batches (`--packing`, `--no-packing`) on very short rows.

    python benchmarks/packing.py

All layers are trained, so that only the layout differs. Times are CPU time (user and system) on the CPU backend; each
line is the median of three alternating rounds. Fails if the losses of the two differ.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mlxsched.platform.blas import preload

preload()

from interleaved import Side, interleaved  # noqa: E402  after the BLAS

from mlxsched.bench.synthetic import LogNormal, lognormal_rows  # noqa: E402

SHORT = LogNormal(median=10, p95=20, shortest=4, longest=64)
HEAVY = LogNormal(median=12, p95=80, shortest=4, longest=600)  # one row in 200 is longer than any line
# model, description of the data, distribution, rows, rows per update
CASES = (
    ("bundled", "10 tokens", SHORT, 512, 8),
    ("bundled", "10 tokens", SHORT, 768, 32),
    ("bundled", "12 tokens, a few of 400", HEAVY, 512, 32),
    ("Llama, 8M", "10 tokens", SHORT, 384, 32),
    ("Llama, 8M", "12 tokens, a few of 400", HEAVY, 256, 32),
)


def line(model: str, data: str, batch: int, packed: Side, padded: Side) -> str:
    """A row of the table."""
    first, later = packed.over(padded, 0), packed.over(padded, 1)
    packing = packed.session.batching.packing
    off = max(_differences(packed, padded))
    if packing is None or off > 1e-5:
        raise SystemExit(f"{model}, {data}: packing {packing}, losses differ by {off:.0e}")
    return (
        f"| {model} | {data} | {batch} | {padded.sampled.padding:.0%} | {packed.sampled.padding:.0%} | {packing.width} "
        f"| {first[0]:.2f}x | **{later[0]:.2f}x** ({later[1]:.2f} to {later[2]:.2f}) | {off:.0e} | {packed.peak_off:+.0%} |"
    )


def _differences(packed: Side, padded: Side) -> list[float]:
    pairs = zip(packed.rounds[0].losses, padded.rounds[0].losses, strict=True)
    return [abs(a - b) / abs(b) for a, b in pairs]


def main() -> None:
    """Print the table."""
    print(
        "| model | median length | rows per update | padding, padded | padding, packed | width | first epoch | second epoch "
        "| losses differ by | predicted peak |\n| --- " + "| --- " * 9 + "|"
    )
    for model, data, mix, count, batch in CASES:
        rows, common = lognormal_rows(count, mix), {"batch_size": batch}
        settings = {"packed": {"packing": True}, "padded": {"packing": False}}
        sides = interleaved(model, rows, 3, common, settings)
        print(line(model, data, batch, sides["packed"], sides["padded"]), flush=True)


if __name__ == "__main__":
    main()
