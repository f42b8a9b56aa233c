"""``mlxsched schedules`` and the gallery that is made from the same registry."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlxsched.cli.main import cli, main
from mlxsched.schedules import parse
from mlxsched.schedules.registry import alias_names, names

GALLERY = Path(__file__).parent.parent.parent / "scripts" / "make_gallery.py"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["schedules", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_schedule_has_a_line_with_a_curve_and_what_it_is() -> None:
    lines = {line.split()[0]: line for line in run().splitlines() if line.startswith("  ")}
    assert list(lines) == [*names(), *alias_names()]
    assert "▁▆██▇▇▆▅▅▄▄▃▂▂▁▁  A linear warmup, then a straight line down" in lines["warmup_linear"]
    assert "████████████████" in lines["constant"]


def test_json_lists_all_that_is_known() -> None:
    records = {record["name"]: record for record in json.loads(run("--json"))}
    assert list(records) == [*names(), *alias_names()]
    wsd = records["wsd"]
    assert parse(wsd["spec"])(100) == 2e-4
    assert {argument["name"]: argument["default"] for argument in wsd["arguments"]}["decay"] == "0.2"
    for name in names():
        assert all(records[name][key] for key in ("summary", "formula", "when", "source", "spec")), name


def test_show_has_formula_arguments_picture_and_source() -> None:
    text = run("show", "one_cycle")
    for label in ("Formula", "Arguments", "Example", "When", "Source"):
        assert any(line.startswith(label) for line in text.splitlines())
    assert "final_div=10000" in text and "arXiv 1708.07120" in text
    assert "learning rate" in text and "⠉" in text
    assert max(map(len, text.splitlines())) <= 80


def test_show_takes_a_familys_short_name() -> None:
    assert "`--schedule linear` means warmup_linear." in run("show", "linear")
    assert "Aliases    linear" in run("show", "warmup_linear")
    assert json.loads(run("show", "warmup_linear", "--json"))["aliases"] == ["linear"]


def test_show_takes_another_librarys_name() -> None:
    text = run("show", "torch.OneCycleLR")
    assert "pct_start=0.3" in text and "learning rate" in text and "Formula" not in text


def test_an_unknown_name_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedules", "show", "one-cycle"]) == 2
    assert "Did you mean 'one_cycle'?" in capsys.readouterr().err


def test_help_has_examples() -> None:
    assert "mlxsched schedules show wsd" in run("--help")
    assert "mlxsched schedules show one_cycle" in run("show", "--help")


def make_gallery(docs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a folder of the test's own."""
    code = f"import sys; sys.path.insert(0, {str(GALLERY.parent)!r}); import make_gallery, pathlib; "
    code += (
        f"make_gallery.DOCS = pathlib.Path({str(docs)!r}); sys.exit(make_gallery.main({list(arguments)!r}))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_gallery_is_made_and_its_check_notices_what_is_late(tmp_path: Path) -> None:
    assert make_gallery(tmp_path, "--check").returncode == 1
    assert make_gallery(tmp_path).returncode == 0
    assert make_gallery(tmp_path, "--check").returncode == 0
    page = (tmp_path / "gallery.md").read_text()
    for name in names():
        assert f"### {name}\n" in page and (tmp_path / "gallery" / f"{name}.svg").is_file()
    assert all(f"| `{name}` |" in page for name in alias_names())
    (tmp_path / "gallery" / "gone.svg").write_text("<svg/>")
    late = make_gallery(tmp_path, "--check")
    assert late.returncode == 1 and "gone.svg is out of date" in late.stderr
    make_gallery(tmp_path)
    assert not (tmp_path / "gallery" / "gone.svg").exists()
