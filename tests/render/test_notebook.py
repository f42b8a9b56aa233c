"""Schedules, runs and findings as a notebook shows them."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

import mlxsched as ms
from mlxsched.analysis.findings import Finding
from mlxsched.errors import UserError
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Evaluated, UpdateMade


@pytest.fixture
def run(tmp_path):
    plan = {"updates": 30}
    run = RunDirectory.create(tmp_path / "<b>one", config={}, origins={}, plan=plan, versions={})
    with run.lock():
        for update in range(30):
            run.metrics.record(UpdateMade(update, 2.0 - 0.01 * update, 1e-4))
        run.metrics.record(Evaluated(30, 1.7))
        run.update_info(status="finished", update=30)
    return run


def svg_of(html):
    start = html.index("<svg")
    return ElementTree.fromstring(html[start : html.index("</svg>") + 6])


def test_a_schedule_shows_itself():
    html = ms.wsd(1e-3, 200, warmup=20)._repr_html_()
    assert "wsd(peak=0.001, steps=200" in html
    assert svg_of(html).tag.endswith("svg")


def test_a_schedule_without_an_end_is_shown_as_text():
    assert ms.constant(1e-3)._repr_html_() is None
    assert "1e-3" in str(ms.constant(1e-3).plot(100))


def test_a_plot_can_be_saved_and_printed(tmp_path):
    picture = ms.warmup_cosine(2e-4, 100, 10).plot(log=True)
    picture.save(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().count("<svg") == 1
    assert "learning rate" in str(picture)


def test_a_run_has_typed_columns(run):
    read = ms.read_run(run.path)
    assert read.train["loss"].dtype == np.float64
    assert np.allclose(read.train["loss"], 2.0 - 0.01 * np.arange(30))
    assert read.evaluations["update"].tolist() == [30]
    assert read.diagnose() == []


def test_a_run_shows_itself_and_its_name_is_text(run):
    html = ms.read_run(str(run.path))._repr_html_()
    assert "&lt;b&gt;one</b>: finished, 30 updates, healthy" in html
    assert svg_of(html).tag.endswith("svg")


def test_a_run_is_followed(run):
    before = ms.read_run(run.path)
    with run.lock():
        run.metrics.record(UpdateMade(30, 1.7, 1e-4))
    assert (len(before.train), len(before.follow().train)) == (30, 31)


def test_a_run_without_updates_shows_its_status(tmp_path):
    run = RunDirectory.create(tmp_path / "new", config={}, origins={}, plan={}, versions={})
    assert "new</b>: running, 0 updates" in ms.read_run(run.path)._repr_html_()


def test_a_place_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="There is no run in"):
        ms.read_run(tmp_path)


def test_a_finding_is_text():
    html = Finding("few_rows", "warning", "<i>3</i> rows")._repr_html_()
    assert html == "<p><b>warning: few_rows</b> &lt;i&gt;3&lt;/i&gt; rows</p>"


def test_schedules_do_not_import_the_drawing():
    code = "import sys, mlxsched as ms; ms.wsd(1e-3, 10); print('mlxsched.render.notebook' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
    )
