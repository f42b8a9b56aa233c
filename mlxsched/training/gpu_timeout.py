"""Updates that macOS ends because they keep the GPU busy for too long: recognized, explained, and continued.

macOS kills a command buffer that occupies the GPU for longer than its watchdog allows while the display is on. The
messages below come from reports by MLX users (mlx#3267 and others); this module has not been tested on a Mac. According
to reports, the error terminates the process in older versions of MLX; only the last checkpoint remains then.
"""

from __future__ import annotations

import re
from functools import cache

import mlx.core as mx

from mlxsched.errors import RunError
from mlxsched.platform.machine import matmul_gflops
from mlxsched.text import counted, number

WATCHDOG = "macOS ends work that keeps the GPU busy for too long"
LEAST = 64  # tokens: the smallest micro-batch that is suggested
ENOUGH = 256  # tokens that keep a GPU busy
SECONDS = 2.0  # a micro-batch that takes longer is at risk: according to reports, the watchdog waits for a few seconds

# "[METAL] Command buffer execution failed: Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)",
# "... Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)", "... Ignored (for causing
# prior/excessive GPU errors) (00000004:kIOGPUCommandBufferCallbackErrorSubmissionsIgnored)" once it has happened.
_TIMEOUT = re.compile(
    r"GPU Timeout|GPU Hang|Impacting Interactivity|prior/excessive GPU errors"
    r"|kIOGPUCommandBufferCallbackError(Timeout|Hang|ImpactingInteractivity|SubmissionsIgnored)",
    re.I,
)


def is_gpu_timeout(error: BaseException) -> bool:
    """Whether ``error`` is what MLX raises after macOS has ended a command buffer."""
    return isinstance(error, RuntimeError) and bool(_TIMEOUT.search(str(error)))


def gpu_timeout(error: Exception, updates: int, tokens: int, longest: int, resume: str) -> RunError:
    """``error`` as a message for the user.

    Args:
        error: what MLX raised.
        updates: the number of saved updates.
        tokens: the present size of a micro-batch.
        longest: tokens of the longest row, which may be more.
        resume: the command that continues the run.
    """
    size = smaller(tokens, longest)
    if size is None:
        then = f"{_too_long(longest)}, which starts a new run. To retry this one:\n  {resume}\n"
    else:
        then = (
            "Continue with smaller micro-batches; schedule and rows do not change, and results change by rounding only (dropout draws "
            f"other masks):\n  {resume} --micro-batch-tokens {size}\n"
        )
    return RunError(
        f"macOS ended the work of an update, because it kept the GPU busy for too long: {str(error)[:200]}\n"
        f"The state after {counted(updates, 'update')} is saved. {then}"
        "If it happens again, put AGX_RELAX_CDM_CTXSTORE_TIMEOUT=1 in front of that command, or let the display sleep: "
        "https://github.com/ml-explore/mlx/issues/3267"
    )


def smaller(tokens: int, longest: int) -> int | None:
    """A power of two, at most half of ``tokens`` and at least 64; None if the largest micro-batch would stay as it is.

    A row of more than ``tokens`` tokens is a micro-batch by itself, whatever their limit is.

    >>> smaller(2048, 900), smaller(700, 700), smaller(80, 50)
    (1024, 256, 64)
    >>> smaller(64, 50), smaller(1024, 2000)
    (None, None)
    """
    if tokens <= LEAST or longest > tokens:
        return None
    return max(1 << ((tokens // 2).bit_length() - 1), LEAST)


def _too_long(longest: int) -> str:
    return (
        f"Smaller micro-batches would not help: the longest row has {longest:,} tokens. Train with a lower --max-seq-length, "
        "or with --grad-checkpoint"
    )


def is_watched() -> bool:
    """Whether macOS's watchdog applies to the device that MLX computes on."""
    return mx.metal.is_available() and mx.default_device().type != mx.DeviceType.cpu


def watched_rate() -> float | None:
    """FLOP/s of the GPU if macOS's watchdog applies to it; else None."""
    return _rate() if is_watched() else None


@cache  # so that the variants of a grid have micro-batches of the same size
def _rate() -> float:
    return 1e9 * matmul_gflops(seconds=0.05)


def short_enough(tokens: int, parameters: int, rate: float) -> int:
    """``tokens`` halved until a micro-batch of a model of so many ``parameters`` takes `SECONDS` at ``rate`` FLOP/s.

    Assumes 6 operations per parameter and token. Never below 256 tokens, which would not keep a GPU busy.

    >>> short_enough(2048, 600_000_000, 4e12), short_enough(2048, 4_000_000_000, 4e12)
    (2048, 256)
    """
    while tokens > ENOUGH and 6.0 * parameters * tokens > SECONDS * rate:
        tokens //= 2
    return tokens


def risk(seconds: float, tokens: int, longest: int) -> str | None:
    """A warning about a micro-batch of ``tokens`` that is expected to take ``seconds`` on Metal; None if it is short.

    ``longest`` is as in `gpu_timeout`. MLX splits a long graph into several command buffers, so each of them takes less time than the micro-batch.
    """
    if seconds <= SECONDS:
        return None
    size = smaller(tokens, longest)
    then = _too_long(longest) if size is None else f"Resume with --micro-batch-tokens {size}"
    return f"a micro-batch is expected to take {number(round(seconds, 1))} s. If macOS ends it with a GPU timeout: {then}"
