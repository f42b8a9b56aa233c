"""How far the self-check's paths are from the plain one on this device, with float32 weights.

On a device that multiplies float32 matrices in TF32 by default (CUDA, and Apple's M5), set MLX_ENABLE_TF32=0 to see the
difference that exact products make:

    python benchmarks/precision_of_products.py
    MLX_ENABLE_TF32=0 python benchmarks/precision_of_products.py --shapes tiny
"""

from __future__ import annotations

import argparse

from mlxsched.bench import cases
from mlxsched.model.fast.forward_path import ForwardPath
from mlxsched.model.fast.selection import choose_path, with_shared_prefix
from mlxsched.model.fast.self_check import SelfCheck, relative_distance
from mlxsched.model.fast.shared_check import SharedCheck
from mlxsched.model.trees import Tensors
from mlxsched.platform.precision import multiplies_in_tf32

PARTS = ("head", "chunk", "boundary", "checkpoint", "blocks", "compiled", "form")
TRAINED = 2  # layers; the others are frozen, so that their outputs can be stored


class _Shows(SelfCheck):
    """Prints the differences. It rejects the first path, which has every optimization, so that they are added one by one."""

    shown = 0

    def disagreement(self, path: ForwardPath) -> str | None:
        print(f"  {' '.join(part for part in PARTS if getattr(path, part)):45}", end="")
        found = super().disagreement(path)
        self.shown += 1
        return found

    def _difference(self, loss: float, gradients: Tensors) -> str | None:
        expected, plain = self.expected
        off = abs(loss - expected) / abs(expected)
        print(f"loss {off:.1e}  gradients {relative_distance(gradients, plain):.1e}", flush=True)
        return None if self.shown or isinstance(self, SharedCheck) else "to add them one by one"


class _ShowsShared(_Shows, SharedCheck):
    """The same for rows that share a prompt."""


def main() -> None:
    """Show the differences for each shape."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=["tiny", "llama-135m", "qwen3-0.6b"])
    parser.add_argument("--rows", type=int, default=8)
    arguments = parser.parse_args()
    print("products of float32 matrices are", "in TF32" if multiplies_in_tf32() else "exact")
    for shape in arguments.shapes:
        print(shape)
        session = cases.session_of(
            cases.Case(shape, shape, trained=TRAINED, rows=arguments.rows, longest=256)
        )
        model, rows = session.loaded.model, session.train_rows
        path = choose_path(_Shows(model, rows), print, prefix=True)
        with_shared_prefix(_ShowsShared(model, rows), path, print)


if __name__ == "__main__":
    main()
