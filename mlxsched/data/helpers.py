"""Tokenizing on all cores: in this process and, for large data sets, in a helper process on each other core.

The rows and their order are the same as with one process: each chunk is tokenized as a whole, and the results are taken in
the order in which the chunks were handed out.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.reduction import ForkingPickler

from mlxsched.data import helper
from mlxsched.data.encode import Encoder
from mlxsched.data.options import DataOptions
from mlxsched.data.record import Record
from mlxsched.data.tokenizing import Format, Tokenized, Tokenizing
from mlxsched.platform.machine import cores

_LOG = logging.getLogger(__name__)

# A helper process takes 1.5 s of CPU time to start, so enough work must be left. How much is left is unknown at first.
AFTER_SECONDS = 2.0
WORTH_SECONDS = 5.0
MOST = 7  # helper processes: with more, this process can't keep up with reading and writing
Done = tuple[list[Record], Tokenized]


class Helpers:
    """Tokenizes chunks; a context manager that ends the helper processes.

    Args:
        encoder: of the user's tokenizer.
        options: how to tokenize.
        share: how much of all records has been read, from 0 to 1; None if unknown.
    """

    def __init__(self, encoder: Encoder, options: DataOptions, share: Callable[[], float | None]) -> None:
        self._encoder, self._options, self._share = encoder, options, share
        self._tokenize = Tokenizing(encoder, options)
        self._helpers: list[_Helper] = []
        self._is_decided = cores() < 2 or not sys.executable
        self.notes: list[str] = []

    def __enter__(self) -> Helpers:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._helpers:
            each.end()

    def tokenized(self, chunks: Iterator[list[Record]], formats: Mapping[str, Format]) -> Iterator[Done]:
        """Each chunk, with what became of it; ``formats`` are those of the chunks that the caller has received."""
        started = time.monotonic()
        while True:
            ready = [each for each in [*self._helpers] if self._is_ready(each)]  # which drops dead ones
            taken = list(islice(chunks, 1 + len(ready)))
            if not taken:
                return
            first, *others = taken
            for each, chunk in zip(ready, others, strict=False):
                each.send((chunk, dict(formats)))
            yield first, self._tokenize(first, formats)
            for each, chunk in zip(ready, others, strict=False):
                yield chunk, self._received(each, chunk, formats)
            if not self._is_decided and time.monotonic() - started > AFTER_SECONDS:
                self._decide(time.monotonic() - started)

    def _received(self, each: _Helper, chunk: list[Record], formats: Mapping[str, Format]) -> Tokenized:
        found = each.receive()
        if isinstance(found, Exception):
            raise found
        if isinstance(found, Tokenized) and found.agrees_with(formats):
            return found
        if found is None:
            self._drop(each)
        return self._tokenize(chunk, formats)

    def _is_ready(self, each: _Helper) -> bool:
        if each.is_ready is None and each.has_replied():
            identity = each.receive()
            each.is_ready = identity == self._encoder.identity()
            if identity is None:
                self._drop(each)
        return bool(each.is_ready)

    def _drop(self, each: _Helper) -> None:
        """Go on without a helper that has died."""
        self._helpers.remove(each)
        self.notes.append(
            f"a helper process for tokenizing ended early ({each.end(1.0)}); the main process did its work"
        )

    def _decide(self, seconds: float) -> None:
        share = self._share()
        if share is not None and seconds * (1 / max(share, 1e-9) - 1) < WORTH_SECONDS:
            return
        self._is_decided = True
        copy = helper.copy_of(self._encoder.tokenizer)
        if copy is None:
            return
        try:
            first = bytes(ForkingPickler.dumps((copy, self._options)))
            for _ in range(min(cores() - 1, MOST)):
                self._helpers.append(_Helper(first))
        except Exception as error:  # noqa: BLE001 - no more processes, or a part of the tokenizer written in Python
            _LOG.debug("no helper: %r", error)  # this process does the work, only slower


class _Helper:
    """A process that runs `mlxsched.data.helper`."""

    def __init__(self, first: bytes) -> None:
        self.is_ready: bool | None = None  # None: it is starting
        self._connection, theirs = Pipe()
        # In a group of its own, so that Ctrl-C in a terminal reaches this process only.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {helper.__name__} import main; main()", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # stdout of this process holds results
            pass_fds=[theirs.fileno()],
            process_group=0,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "TOKENIZERS_PARALLELISM": "false",
                "TRANSFORMERS_VERBOSITY": "error",
            },
        )
        theirs.close()  # so that the process is seen to end
        # In a thread: the connection holds less than a tokenizer, and the process reads from it only after its imports.
        self._writing = threading.Thread(target=self._write, args=(first,), daemon=True)
        self._writing.start()

    def send(self, request: object) -> None:
        """Hand out a chunk; `receive` reports if that fails."""
        self._write(bytes(ForkingPickler.dumps(request)))

    def _write(self, request: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._connection.send_bytes(request)

    def has_replied(self) -> bool:
        """Whether `receive` would return at once."""
        return self._connection.poll()

    def receive(self) -> object:
        """The next reply; None if the process has died."""
        try:
            reply: object = self._connection.recv()
        except (EOFError, OSError):
            return None
        return reply

    def end(self, wait: float = 0.0) -> str:
        """End the process if it does not end within ``wait`` seconds; returns how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(wait)
        self._process.kill()
        status = self._process.wait()
        self._writing.join(1.0)  # it fails now, and with another error if the connection were closed before
        self._connection.close()
        return f"signal {-status}" if status < 0 else f"exit code {status}"
