"""What the checkpointer writes outside the run's directory."""

from __future__ import annotations

import os

from mlxsched.runs.directory import RunDirectory
from mlxsched.training.checkpointer import copy_adapter


def test_a_copy_of_the_adapter_leaves_every_other_file_of_the_folder(tmp_path):
    import mlx.core as mx

    run = RunDirectory.create(tmp_path / "run", config={}, origins={}, plan={}, versions={})
    (tmp_path / "run" / "adapters").mkdir()
    mx.save_safetensors(str(run.adapters / "adapters.safetensors"), {"lora_a": mx.ones((2, 2))})
    folder = tmp_path / "mine"
    (folder / "sub").mkdir(parents=True)
    (folder / "thesis.txt").write_text("precious")
    (folder / "adapters.safetensors").write_text("the old adapter")
    for _ in range(2):
        copy_adapter(run, {"rank": 8}, folder)
        assert sorted(os.listdir(folder)) == [
            "adapter_config.json",
            "adapters.safetensors",
            "sub",
            "thesis.txt",
        ]
        assert (folder / "thesis.txt").read_text() == "precious"
    assert mx.load(str(folder / "adapters.safetensors"))["lora_a"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
