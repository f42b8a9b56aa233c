"""What the workers of a run say to each other: sums of tensors, orders of the leader, and numbers of everybody.

Everything is an ``all_sum``, the one operation that all of MLX's backends have. One is never begun before the last one has
ended: MLX's ring deadlocks where two of them are in flight in a different order on different workers.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlxsched.errors import RunError
from mlxsched.platform.signals import say

TIMEOUT = 600.0  # seconds; PyTorch waits as long
_ORDER_BYTES = 512  # of the first message of an order; few orders need a second one
_LENGTH_BYTES = 4
_BUCKET = 1 << 23  # numbers that are summed at once: 32 MB of float32, as in mlx.nn.utils.average_gradients

Order = dict[str, Any]
"""What the leader wants: ``{"do": ..., ...}``, plain data."""


class WorkersLost(RunError):
    """Another worker has ended or does not answer; the tensors of this one are those of the last complete update."""


class World:
    """The workers of a run, of which this process is number ``rank`` of ``size``; 0 is the leader.

    Args:
        group: MLX's group of processes; None for a process alone.
        sockets: of the connections to the neighbors, where the backend uses sockets.
        timeout: seconds after which a worker that does not answer is given up.
    """

    def __init__(
        self,
        group: mx.distributed.Group | None = None,
        *,
        sockets: Sequence[int] = (),
        timeout: float = TIMEOUT,
    ) -> None:
        self.rank, self.size = (group.rank(), group.size()) if group else (0, 1)
        self._group, self._sockets, self._timeout = group, sockets, timeout
        self._lost: str | None = None
        self.busy = False  # whether the others wait for this worker's part of something other than an order

    @property
    def alone(self) -> bool:
        """Whether this is the only process."""
        return self.size == 1

    def sum(self, tensors: Sequence[mx.array]) -> list[mx.array]:
        """The sums of float32 ``tensors`` over all workers, who all get the same numbers; waits for all of them."""
        mx.eval(tensors)  # what this worker computes itself has no time limit
        found: list[mx.array] = []
        while len(found) < len(tensors):
            found += self._sum_of_bucket(_bucket(tensors[len(found) :]))
        return found

    def _sum_of_bucket(self, tensors: Sequence[mx.array]) -> list[mx.array]:
        summed = self._all_sum(mx.concatenate([tensor.reshape(-1) for tensor in tensors]))
        ends = list(itertools.accumulate(tensor.size for tensor in tensors))
        parts = mx.split(summed, ends[:-1])
        return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def copy(self, tensor: mx.array) -> mx.array:
        """The leader's ``tensor``, to the bit; those of the others have the same shape and type."""
        raw = tensor.reshape(-1).view(mx.uint8)
        raw = self._all_sum(raw if self.rank == 0 else mx.zeros_like(raw))
        return raw.view(tensor.dtype).reshape(tensor.shape)

    def gather(self, numbers: Sequence[float]) -> NDArray[np.float64]:
        """The ``numbers`` of every worker, exactly, ``[size, len(numbers)]``."""
        table = np.zeros((self.size, len(numbers)))
        table[self.rank] = numbers
        raw: Any = np.array(self._all_sum(mx.array(table.reshape(-1).view(np.uint8))))
        return np.asarray(raw.view(np.float64).reshape(table.shape))

    def tell(self, order: Order, *, patient: bool = False) -> None:
        """Send ``order`` to the others, who wait for it in `told`; nothing happens where there are none.

        ``patient`` waits for them without limit.
        """
        if self.alone:
            return
        if self.busy:  # they would take it for numbers
            raise WorkersLost("worker 0 failed in the middle of an update")
        text = json.dumps(order).encode()
        self._exchange(len(text).to_bytes(_LENGTH_BYTES, "little") + text, patient=patient)

    def told(self, *, patient: bool = False) -> Order:
        """The next order of the leader; ``patient`` waits for it without limit."""
        raw = self._exchange(b"", patient=patient)
        order: Order = json.loads(raw)
        return order

    def _exchange(self, message: bytes, *, patient: bool = False) -> bytes:
        """The leader's ``message``, without its length: in one piece, or its first bytes and then the rest."""
        first = self._bytes(message[:_ORDER_BYTES].ljust(_ORDER_BYTES, b"\0"), patient=patient)
        length = int.from_bytes(first[:_LENGTH_BYTES], "little")
        room = _ORDER_BYTES - _LENGTH_BYTES
        if length <= room:
            return first[_LENGTH_BYTES : _LENGTH_BYTES + length]
        rest = self._bytes(message[_ORDER_BYTES:].ljust(length - room, b"\0"))
        return first[_LENGTH_BYTES:] + rest

    def _bytes(self, mine: bytes, *, patient: bool = False) -> bytes:
        """The sum of the bytes of all workers, which is the leader's: those of the others are 0."""
        summed: Any = np.array(self._all_sum(mx.array(np.frombuffer(mine, np.uint8)), patient=patient))
        return bytes(summed.tobytes())

    def _all_sum(self, array: mx.array, *, patient: bool = False) -> mx.array:
        """``array`` summed over all workers, computed.

        Raises `WorkersLost` if one has ended, or is not there in time.
        """
        if self._lost is not None:  # a ring that has failed once would hang
            raise WorkersLost(self._lost)
        mx.eval(array)
        total = mx.distributed.all_sum(array, group=self._group)
        with contextlib.nullcontext() if patient else self._time_limit():
            try:
                mx.eval(total)
            except RuntimeError as error:
                self._lost = self._lost or f"the connection to another worker was lost ({error})"
                raise WorkersLost(self._lost) from error
        return total

    @contextlib.contextmanager
    def _time_limit(self) -> Iterator[None]:
        timer = threading.Timer(self._timeout, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        """End the wait of the main thread, which MLX itself never does while the other side stays connected.

        A ring fails once its sockets are shut down. Other backends can only be left with the process.
        """
        self._lost = f"another worker did not answer for {self._timeout:g} s"
        for number in self._sockets:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
                connection.shutdown(socket.SHUT_RDWR)
        if not self._sockets:
            say(f"Error: {self._lost}. Resume from the last checkpoint with `mlxsched resume RUN`.")
            os._exit(RunError.exit_code)


ALONE = World()
"""The world of a process that trains alone."""


def _bucket(tensors: Sequence[mx.array]) -> Sequence[mx.array]:
    """The first tensors, as many as one message takes: a message for each of hundreds would cost a round trip each."""
    sizes = itertools.accumulate(tensor.size for tensor in tensors)
    return tensors[: max(sum(size <= _BUCKET for size in sizes), 1)]
