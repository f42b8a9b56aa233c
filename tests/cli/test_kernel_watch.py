"""Lines about the kernels that MLX builds."""

from __future__ import annotations

import tempfile
import threading

from mlxsched.cli.kernel_watch import watching_kernels


def test_new_kernels_are_reported_until_the_first_update(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / "mlx" / "0.0" / "cpu"
    folder.mkdir(parents=True)
    (folder / "libold.so").touch()
    seen, told = [], threading.Semaphore(0)

    def show(built):
        seen.append(built)
        told.release()
        return built < 2

    with watching_kernels(show, seconds=0.01):
        for name in ("a", "b", "c"):
            (folder / f"lib{name}.so").touch()
            if name != "c":
                assert told.acquire(timeout=60)
        assert not told.acquire(timeout=0.1)
    assert seen == [1, 2]
