"""Kill a real training with SIGKILL at random moments, resume it each time, and compare it with one that was not killed.

    python tests/harness/kill_resume.py --kills 50 -- --model tiny --data excel --iters 60 --save-every 5

What comes after ``--`` goes to ``mlxsched train``. With ``--then "extend --steps +20"``, or ``"cooldown"``, each run that
has finished is made longer by that command, and it is this that is killed and resumed. The moments are of four kinds: any time at all, while a
checkpoint is being written, while another file is, and after a random number of new records. After each kill every
file must be readable, no checkpoint may be lost, and the files of a user must be unchanged: those in the folder that
--adapter-path names, and those put into the run's own folders. At the end adapter, its copy, optimizer, results and metrics
must be those of the reference, byte for byte (metrics without the keys that measure time and memory). Exit code 0 says
that all of this held.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from mlxsched.runs.atomic import TEMPORARY_PREFIX
from mlxsched.runs.checkpoints import Checkpoints
from mlxsched.runs.directory import RunDirectory, is_run
from mlxsched.runs.metrics import read_metrics

MEASURED = ("seconds", "tokens_per_second", "peak_memory_gb")
ENDLESS = 600.0  # seconds after which a command counts as hung


class Broken(Exception):
    """A guarantee did not hold."""


def main() -> int:
    """Run the harness as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=3, help="how often to kill (default 3)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the random moments")
    parser.add_argument("--work", type=Path, help="where the runs go (default: a temporary directory)")
    parser.add_argument(
        "--then", default="", help="a command for each run that has finished, such as cooldown"
    )
    parser.add_argument("train", nargs="*", metavar="ARGUMENT", help="arguments of mlxsched train, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        harness = Harness(options.work or Path(scratch), options.train, options.seed, options.then.split())
        try:
            harness.run(options.kills)
        except Broken as broken:
            _tell(f"BROKEN (seed {options.seed}): {broken}")
            return 1
    sys.stdout.write(
        json.dumps({"kills": options.kills, "seed": options.seed, "moments": harness.moments}) + "\n"
    )
    return 0


class Harness:
    """One reference, and as many killed runs as it takes for that many kills."""

    def __init__(self, work: Path, train: list[str], seed: int, then: list[str]) -> None:
        self.work, self.train, self.then = work, train, then
        self.moments: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._kinds = itertools.cycle(MOMENTS)
        self._lifetime = 0.0
        self._precious = Precious()

    def run(self, kills: int) -> None:
        """Raise `Broken` at the first guarantee that does not hold."""
        reference = self.work / "reference"
        started = time.monotonic()
        self._finish_all(reference)
        self._lifetime = time.monotonic() - started
        _tell(f"reference: {self._lifetime:.1f} s, {len(read_metrics(reference / 'metrics.jsonl'))} records")
        round_number = 0
        while self.moments.total() < kills or round_number == 0:
            round_number += 1
            victim = self.work / f"killed-{round_number}"
            self._train_with_kills(victim, kills)
            compare(reference, victim)
            compare_results(reference, victim)
            self._precious.check()
            _tell(f"{victim.name}: equal to the reference, after {self.moments.total()} kills in all")

    def _train_with_kills(self, run: Path, kills: int) -> None:
        last_good = -1
        if self.then:  # kills before that are the subject of a run without it
            self._finish(self._start(run), run)
        while self.moments.total() < kills:
            process = self._start(run)
            kind = next(self._kinds)
            if not _wait(process, MOMENTS[kind](run, self._random, self._lifetime)):
                self._finish(process, run)
                return
            process.kill()
            process.wait()
            self.moments[kind] += 1
            last_good = inspect(run, last_good)
            if self.then and not has_revisions(run, last_good):
                last_good = -1  # an extension goes back to an earlier checkpoint, and removes those after it
            self._precious.check()
            self._precious.put(run, run / "adapters", run / "checkpoints")
            _tell(f"kill {self.moments.total()} ({kind}): the last good checkpoint is {last_good}")
            if self._is_over(run):
                return
        self._finish_all(run)

    def _finish_all(self, run: Path) -> None:
        """Train to the end without a kill, and make longer what has to be."""
        while not self._is_over(run):
            self._finish(self._start(run), run)

    def _is_over(self, run: Path) -> bool:
        return is_finished(run) and (not self.then or self._is_extended(run))

    def _is_extended(self, run: Path) -> bool:
        return is_run(run) and bool(RunDirectory.open(run).info.requests)

    def _start(self, run: Path) -> subprocess.Popen[bytes]:
        """Resume the run; one that was killed before it had a directory starts again."""
        command = ["resume", str(run)] if is_run(run) else ["train", *self.train, "--run-dir", str(run)]
        if is_finished(run):
            command = [self.then[0], str(run), *self.then[1:]]
        (copy_of(run) / "sub").mkdir(parents=True, exist_ok=True)
        self._precious.put(copy_of(run), copy_of(run) / "sub")
        command += ["--adapter-path", str(copy_of(run))]
        with open(_log(run), "w") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "mlxsched", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _finish(self, process: subprocess.Popen[bytes], run: Path) -> None:
        process.wait(timeout=ENDLESS)
        if process.returncode != 0:
            command = " ".join(process.args[2:])
            raise Broken(f"{command} ended with {process.returncode}:\n{_log(run).read_text()}")
        if not is_finished(run):
            raise Broken(f"{run} is {RunDirectory.open(run).info.status} after a command that ended with 0")


PRECIOUS = "precious.txt"


class Precious:
    """Files of a user, each in a folder that mlxsched writes to; none of them may change."""

    def __init__(self) -> None:
        self._files: dict[Path, str] = {}

    def put(self, *folders: Path) -> None:
        """Put a file into each of the folders that exist."""
        for path in (folder / PRECIOUS for folder in folders if folder.is_dir()):
            self._files[path] = f"mine: {path}"
            path.write_text(self._files[path])

    def check(self) -> None:
        """Raise `Broken` for a file that is gone or changed."""
        for path, text in self._files.items():
            if not path.exists() or path.read_text() != text:
                raise Broken(f"the user's file {path} is gone or changed")


def copy_of(run: Path) -> Path:
    """The folder of the user's to which the adapter is copied."""
    return run.with_name(run.name + "-copy")


def is_finished(run: Path) -> bool:
    """Whether the run reached its planned end."""
    return is_run(run) and RunDirectory.open(run).info.status == "finished"


def _log(run: Path) -> Path:
    return run.with_name(run.name + ".log")


# The moments: each yields False until it has come.


def any_time(run: Path, generator: random.Random, lifetime: float) -> Iterator[bool]:
    """A moment that does not depend on what the run is doing."""
    end = time.monotonic() + generator.uniform(0, 0.8 * lifetime)
    while time.monotonic() < end:
        yield False
    yield True


def in_checkpoint(run: Path, generator: random.Random, lifetime: float) -> Iterator[bool]:
    """While a checkpoint is written, or just after."""
    return _in_write(run / "checkpoints", generator)


def in_other_file(run: Path, generator: random.Random, lifetime: float) -> Iterator[bool]:
    """While ``run.json`` or an adapter is written, or just after."""
    return _in_write(run, generator)


def after_records(run: Path, generator: random.Random, lifetime: float) -> Iterator[bool]:
    """After some new records, counted from the size to which the resume has cut the file back."""
    path = run / "metrics.jsonl"
    lowest, wanted = _size(path), generator.randint(1, 3000)
    while _size(path) - lowest < wanted:
        lowest = min(lowest, _size(path))
        yield False
    yield True


MOMENTS: dict[str, Callable[[Path, random.Random, float], Iterator[bool]]] = {
    "any time": any_time,
    "in a checkpoint": in_checkpoint,
    "in another file": in_other_file,
    "after records": after_records,
}


def _in_write(directory: Path, generator: random.Random) -> Iterator[bool]:
    skipped, left = generator.randint(0, 3), _temporaries(directory)
    while skipped >= 0:
        now = _temporaries(directory)
        skipped -= bool(now - left)
        left |= now
        yield False
    time.sleep(generator.uniform(0, 0.01))
    yield True


def _wait(process: subprocess.Popen[bytes], moment: Iterator[bool]) -> bool:
    """Whether the moment came before the process ended."""
    end = time.monotonic() + ENDLESS
    for come in moment:
        if process.poll() is not None:
            return False
        if come:
            return True
        if time.monotonic() > end:
            process.kill()
            raise Broken(f"{' '.join(process.args[2:])} hangs")
        time.sleep(0.0003)
    return False


def _temporaries(directory: Path) -> set[str]:
    with suppress(FileNotFoundError):
        return {name for name in os.listdir(directory) if name.startswith(TEMPORARY_PREFIX)}
    return set()


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def inspect(run: Path, last_good: int) -> int:
    """Check what a kill left; returns the update of the last good checkpoint, -1 for none."""
    if not is_run(run):
        return last_good
    RunDirectory.open(run).read_metrics()
    for name in ("adapters", "adapters_final"):
        check_adapter(run / name)
    store = Checkpoints(run / "checkpoints")
    for update in store.updates():
        store.load(update)
    latest = store.updates()[-1] if store.updates() else -1
    replacing = any("replaced" in name for name in _temporaries(store.directory))
    if latest < last_good and not replacing:
        raise Broken(f"checkpoint {last_good} of {run} is lost: there are {store.updates()}")
    return max(latest, last_good)


def has_revisions(run: Path, update: int) -> bool:
    """Whether the checkpoint of ``update`` was written since the horizon was revised."""
    path = run / "checkpoints" / f"{update:06d}" / "state.json"
    return path.exists() and bool(json.loads(path.read_text())["revisions"])


def check_adapter(directory: Path) -> None:
    """Check that an adapter directory is missing or can be loaded."""
    import mlx.core as mx

    if directory.exists():
        json.loads((directory / "adapter_config.json").read_text())
        if not mx.load(str(directory / "adapters.safetensors")):
            raise Broken(f"{directory} holds no tensors")


def compare(reference: Path, run: Path) -> None:
    """Raise `Broken` where the finished `run` differs from `reference`."""
    expected, found = _contents(reference), _contents(run)
    if expected.keys() != found.keys():
        raise Broken(f"{run} holds {sorted(found)}; {reference} holds {sorted(expected)}")
    for name in expected:
        if expected[name] != found[name]:
            raise Broken(f"{run / name} differs from {reference / name}")
    _compare_metrics(reference / "metrics.jsonl", run / "metrics.jsonl")


def compare_results(reference: Path, run: Path) -> None:
    """Raise `Broken` where ``run.json`` has lost what was measured before or after the training."""
    expected, found = RunDirectory.open(reference).info, RunDirectory.open(run).info
    if (expected.results, expected.best) != (found.results, found.best):
        raise Broken(f"{run / 'run.json'} has other results than {reference / 'run.json'}: {found.results}")


def _contents(run: Path) -> dict[str, bytes]:
    """What must be equal, byte for byte: adapters, and the tensors of all checkpoints that are kept."""
    adapters = [*run.glob("adapters*/*"), *run.glob("earlier/*/adapters*/*")]
    paths = [*adapters, *run.glob("checkpoints/*/*.safetensors")]
    found = {str(path.relative_to(run)): path.read_bytes() for path in paths if path.name != PRECIOUS}
    copied = {f"copy/{path.name}": path.read_bytes() for path in copy_of(run).glob("adapter*")}
    return found | copied


def _compare_metrics(expected: Path, found: Path) -> None:
    lines = zip(_timeless(expected), _timeless(found), strict=False)
    for number, (one, other) in enumerate(lines, start=1):
        if one != other:
            raise Broken(f"{found}:{number} is {other}; {expected} has {one}")
    if len(_timeless(expected)) != len(_timeless(found)):
        raise Broken(
            f"{found} has {len(_timeless(found))} records; {expected} has {len(_timeless(expected))}"
        )


def _timeless(path: Path) -> list[dict[str, object]]:
    return [{key: record[key] for key in record if key not in MEASURED} for record in read_metrics(path)]


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
