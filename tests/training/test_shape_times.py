"""What micro-batches take: predicted from a few, by a clock of the test."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlxsched.training.shape_times import LARGE, ShapeTimes, Stopwatch

SHAPES = [(1, 16), (2, 32), (4, 32), (8, 64), (4, 64)]
MEAN = (4, 64)  # the shape closest to the mean of all shapes, 195 positions


class Machine:
    """A device that takes ``launch`` seconds and one for each ``speed`` positions; a new shape takes ``compiling`` more."""

    def __init__(self, launch=0.001, speed=1e4, compiling=0.1):
        self.now, self.made = 0.0, []
        self._launch, self._speed, self._compiling = launch, speed, compiling

    def run(self, shape):
        self.now += 0.0 if shape in self.made else self._compiling
        self.now += self.seconds(shape)
        self.made.append(shape)

    def seconds(self, shape):
        return self._launch + shape[0] * shape[1] / self._speed


def times_of(machine, allowed):
    return ShapeTimes(machine.run, Stopwatch(lambda: machine.now, allowed), lambda shape: 0.0)


def test_a_linear_cost_is_predicted_for_every_shape():
    machine = Machine()
    times = times_of(machine, 3.0)
    times.begin(SHAPES, 10**6)
    times.measure(SHAPES, 1.0)
    for shape in [*SHAPES, (8, 32), (16, 64)]:
        assert times.seconds(shape) == pytest.approx(machine.seconds(shape), rel=1e-6)
    assert list(dict.fromkeys(machine.made)) == [(1, 16), MEAN, (8, 64)]
    assert times.compiling_of(SHAPES) == pytest.approx(0.5)
    assert times.watch.spent == pytest.approx(machine.now)


def test_building_kernels_is_not_part_of_the_time():
    machine, built = Machine(), []

    def build_and_run(shape):
        if not built:  # a child process, as MLX's compiler is
            built.append(subprocess.run([sys.executable, "-S", "-c", "pass"], check=True))
            machine.now += 60.0
        machine.run(shape)

    times = ShapeTimes(build_and_run, Stopwatch(lambda: machine.now, 3.0), lambda shape: 0.0)
    times.begin(SHAPES, 10**6)
    times.measure(SHAPES, 1.0)
    for shape in SHAPES:
        assert times.seconds(shape) == pytest.approx(machine.seconds(shape), rel=1e-6)
    assert times.watch.spent < 1.0


def test_kernels_that_this_process_builds_for_the_first_shape_are_not_built_for_the_others():
    """As Metal does, where nothing shows that kernels were built."""
    machine, built = Machine(), []

    def build_and_run(shape):
        machine.now += 0.0 if built else 1.5
        built.append(shape)
        machine.run(shape)

    times = ShapeTimes(build_and_run, Stopwatch(lambda: machine.now, 6.0), lambda shape: 0.0)
    times.begin(SHAPES, 10**6)
    times.measure(SHAPES, 1.0)
    assert times.compiling_of(SHAPES) == pytest.approx(0.5)


def test_kernels_for_cuda_are_noticed_by_their_files(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_PTX_CACHE_DIR", str(tmp_path))
    machine = Machine(compiling=0.0)

    def build_and_run():
        if not (tmp_path / "kernel.ptx").exists():
            (tmp_path / "kernel.ptx").touch()
            machine.now += 5.0
        machine.run(MEAN)

    watch = Stopwatch(lambda: machine.now, 3.0)
    assert watch.time(build_and_run) == pytest.approx(machine.seconds(MEAN)) == watch.spent


def test_a_slow_machine_times_fewer_rows_and_stays_within_what_is_allowed():
    machine = Machine(speed=100.0, compiling=0.2)
    times = times_of(machine, 3.0)
    times.begin([(8, 64)], LARGE // 64)
    times.measure([(8, 64)], 0.5)
    assert machine.made[0] == (1, 64) and (8, 64) not in machine.made
    assert machine.now <= 3.0
    assert times.seconds((8, 64)) == pytest.approx(5.12, rel=0.3)


def test_a_shape_that_is_run_once_is_not_taken_for_as_slow_as_its_compilation():
    machine = Machine(compiling=0.5)
    times = times_of(machine, 1.05)
    times.begin(SHAPES, 10**6)
    times.measure(SHAPES, 1.0)
    assert machine.made.count(MEAN) == 1  # no time was left to repeat it
    assert times.seconds(MEAN) == pytest.approx(machine.seconds(MEAN), abs=0.05)


def test_a_guess_holds_until_a_shape_is_timed():
    """The mean shape is timed first: where no time is left for others, it alone gives the total."""
    machine = Machine(launch=0.01, compiling=0.0)
    times = ShapeTimes(machine.run, Stopwatch(lambda: machine.now, 0.1), lambda shape: 0.1)
    times.measure(SHAPES, 0.5)
    assert machine.made == [] and times.sum(SHAPES) == pytest.approx(0.5)
    times.guess = lambda shape: 0.01
    times.measure(SHAPES, 0.5)
    assert set(machine.made) == {MEAN}
    assert times.sum(SHAPES) == pytest.approx(sum(map(machine.seconds, SHAPES)), rel=0.15)


def test_two_close_shapes_that_differ_by_chance_do_not_make_a_long_one_endless():
    times = times_of(Machine(), 1.0)
    times.known = {100: 0.01, 110: 0.03}
    assert times.seconds((1, 1100)) == pytest.approx(0.3)


def test_without_any_time_the_smallest_shape_is_run_once():
    machine = Machine()
    times = times_of(machine, 0.0)
    times.begin(SHAPES, 10**6)
    times.measure(SHAPES, 0.5)
    assert machine.made == [(1, 16)]
