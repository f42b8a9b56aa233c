"""The generated reference, and the site that is built from docs/."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlxsched.cli.main import COMMANDS
from mlxsched.config.schema import RunConfig

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import make_reference  # noqa: E402


def test_the_reference_has_every_command_with_its_flags():
    page = make_reference.commands_page()
    for name in COMMANDS:
        assert f"\n## mlxsched {name}\n" in page
    train, plan = (page.split(f"\n## mlxsched {name}\n")[1].split("\n## ")[0] for name in ("train", "plan"))
    assert "| `--learning-rate X` |" in train and "| `--mask-prompt/--no-mask-prompt` |" in train
    assert "--learning-rate" not in plan and "[`mlxsched train`](#mlxsched-train)" in plan
    assert "\b" not in page


def test_the_reference_has_every_key_with_its_type_and_default():
    page = make_reference.config_page()
    for key in RunConfig.model_fields:
        assert f"| `{key}` |" in page or key == "lora_parameters"
    assert "| `lora_parameters.rank` | integer | `8` | Rank of the LoRA matrices. |" in page
    assert re.search(r"\| `fine_tune_type` \| `lora` `dora` `full` \| `\"lora\"` \|", page)


def test_links_between_files_of_the_repository_lead_to_pages(tmp_path):
    pytest.importorskip("mkdocs")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "-q",
        "--strict",
        "-f",
        ROOT / "mkdocs.yml",
        "-d",
        tmp_path,
    ]
    subprocess.run(command, check=True, env={"PATH": "", "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"})
    page = (tmp_path / "faults.html").read_text()
    assert 'href="security.html"' in page
    assert 'href="faults.html"' in (tmp_path / "security.html").read_text()
    assert 'href="examples.html#own_looppy"' in (tmp_path / "coming-from-mlx-lm.html").read_text()
    assert 'id="own_looppy"' in (tmp_path / "examples.html").read_text()
    loaded = [
        link
        for path in tmp_path.rglob("*.html")
        for link in re.findall(r'src="(http[^"]+)', path.read_text())
    ]
    assert not loaded  # the pages load nothing from the network
