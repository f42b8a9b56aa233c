"""The kernels that MLX keeps, the header that they include, and the CPU time of child processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mlxsched.platform import kernels
from mlxsched.platform.kernels import (
    OFF,
    built_kernels,
    children_seconds,
    precompile_header,
    precompiled_header,
)

FUSED = "import mlx.core as mx; mx.set_default_device(mx.cpu); mx.eval(mx.compile(lambda x: mx.exp(x) * x + 1)(mx.ones(4)))"
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MLX's kernels are not built by GCC")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files, without kernels."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel built without a precompiled header."""
    return build_one(tmp_path_factory.mktemp("plain"))


def build_one(folder: Path) -> Path:
    """Build a kernel in a process of its own; returns its library."""
    environment = {"TMPDIR": str(folder), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", FUSED], check=True, env=environment)
    (library,) = folder.glob("mlx/*/cpu/*.so")
    return library


def machine_code(library: Path) -> bytes:
    """The library without its symbol table, which names a temporary file."""
    subprocess.run(["strip", library], check=True)
    return library.read_bytes()


def test_a_child_that_ended_is_counted() -> None:
    before = children_seconds()
    subprocess.run([sys.executable, "-S", "-c", "sum(range(10**6))"], check=True)
    assert before < children_seconds() < before + 60


def test_a_fused_function_leaves_a_kernel(folder: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert built_kernels() == 0
    monkeypatch.setattr(tempfile, "tempdir", str(plain.parents[3]))
    assert built_kernels() == 1


@linux
def test_the_precompiled_header_is_used_and_changes_no_kernel(folder: Path, plain: Path) -> None:
    process = precompile_header()
    assert process and process.wait(120) == 0
    assert precompile_header() is None  # it is there
    library = build_one(folder)
    source = library.with_name(library.name.removeprefix("lib")).with_suffix(".cpp")
    command = [
        *kernels._COMPILER,
        "-H",
        str(source),
        "-o",
        str(folder / "again.so"),
    ]  # without -I: no other header
    used = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    header = precompiled_header()
    assert header and used.startswith(f"! {header}\n")
    assert [path.name for path in header.parent.iterdir()] == [header.name]
    assert [path.name for path in header.parent.parent.iterdir()] == [header.parent.name]
    assert machine_code(library) == machine_code(plain)


@linux
def test_without_a_compiler_nothing_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = folder / "bin"
    programs.mkdir()
    for name in ("sh", "mv", "rm"):
        (programs / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(programs))
    assert precompile_header() is None
    (programs / "g++").write_text("#!/bin/sh\nexit 1\n")
    (programs / "g++").chmod(0o700)
    process, header = precompile_header(), precompiled_header()
    assert process and process.wait(60) == 0
    assert header and list(header.parent.iterdir()) == []


@linux
def test_each_compiler_has_a_header_of_its_own_and_what_a_killed_one_left_is_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = folder / "bin"
    programs.mkdir()
    for name in ("sh", "mv", "rm"):
        (programs / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(programs))
    compiler = programs / "g++"
    # Writes its own text into the file that follows -o.
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho made > "$2"\n')
    compiler.chmod(0o700)
    first = precompiled_header()
    assert first
    place = first.parent
    place.parent.mkdir(parents=True)
    place.write_text("the header of an earlier version of mlxsched")
    ended = subprocess.Popen(["sh", "-c", ""])
    ended.wait()
    left, growing = (place.with_name(f"{place.name}.{number}") for number in (ended.pid, os.getpid()))
    left.write_text("half")
    growing.write_text("half")
    process = precompile_header()
    assert process and process.wait(60) == 0
    assert first.read_text() == "made\n" and growing.exists() and not left.exists()
    os.utime(compiler, (1, 1))  # another g++
    second, process = precompiled_header(), precompile_header()
    assert process and process.wait(60) == 0 and second
    assert second != first and sorted(place.iterdir()) == sorted([first, second])


@linux
def test_without_a_shell_nothing_starts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    assert precompile_header() is None


@linux
def test_it_can_be_switched_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OFF, "1")
    assert precompile_header() is None
    assert list(folder.iterdir()) == []


@linux
@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_of_another_user_is_left_alone(folder: Path) -> None:
    folder.chmod(0o500)
    assert precompile_header() is None


@linux
def test_nothing_is_precompiled_for_an_mlx_whose_kernels_do_not_include_the_header(folder: Path) -> None:
    target, library = folder / "mlx" / "header.gch", folder / "lib" / "libmlx.so"
    assert not kernels._is_wanted(target, folder)  # no library
    library.parent.mkdir()
    library.write_text("-std=c++17 -O3 -Wall -fPIC -shared")
    assert not kernels._is_wanted(target, folder)
    library.write_text('text #include "mlx/backend/cpu/compiled_preamble.h" text')
    assert kernels._is_wanted(target, folder)
