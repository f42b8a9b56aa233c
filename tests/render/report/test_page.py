"""The page of a report: complete, without the network, and safe from what a stranger's run holds."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from mlxsched.analysis.diagnosis import diagnose
from mlxsched.analysis.diagnosis.histories import run_history
from mlxsched.cli.main import main
from mlxsched.errors import UsageError
from mlxsched.render.report import ReportedRun, report_html
from mlxsched.render.report.figures import figures
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Evaluated, Notice, UpdateMade
from mlxsched.runs.recording import read_recording

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>@{y}"


def sample(answer, text):
    return {"prompt": f"sum up column B {text}", "expected": "=SUM(B:B)", "answer": answer}


@pytest.fixture
def make(tmp_path):
    def made(name="one", updates=30, text="plain"):
        run = RunDirectory.create(
            tmp_path / name,
            config={"data": text},
            origins={"data": text},
            plan={"updates": updates, "note": text},
            versions={},
        )
        with run.lock():
            for update in range(updates):
                run.metrics.record(
                    UpdateMade(
                        update, 2.0 / (1 + update), 1e-4, grad_norm=1.0, seconds=0.1, peak_memory_gb=0.03
                    )
                )
            run.metrics.record(Notice(3, text, text))
            run.metrics.record(Evaluated(updates, 0.5))
            results = {
                "before": {"loss": 2.0, "exact_match": None, "answers": [sample("=B", text)]},
                "after": {"loss": 0.5, "exact_match": 0.75, "answers": [sample("=SUM(B:B)", text)]},
            }
            run.update_info(status="finished", update=updates, results=results, message=text)
        return ReportedRun(read_recording(run.path), run.info, diagnose(run_history(run)))

    return made


COUNT = """<script>
const canvases = node => [...node.querySelectorAll('*')].reduce(
  (sum, one) => sum + (one.tagName === 'CANVAS') + (one.shadowRoot ? canvases(one.shadowRoot) : 0), 0);
setTimeout(() => { document.body.dataset.canvases = canvases(document); }, 3000);
</script></body>"""


def without_scripts(page):
    return re.sub(r"<script.*?</script>", "", page, flags=re.S)


def seen(page, tmp_path):
    """The page after its scripts ran in a real browser, with the number of its canvases."""
    page = page.replace("</body>", COUNT)
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=5000",
        "--dump-dom",
    ]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_the_page_has_everything(make):
    page = report_html([make()])
    for text in (
        "Verdict: healthy",
        "validation loss",
        "0.5000",
        "75.0%",
        "Plan",
        "Configuration",
        "gradient norm",
    ):
        assert text in page
    assert 'id="' in page


def test_answers_before_and_after_stand_side_by_side(make):
    page = report_html([make()])
    cells = re.search(r"<td>sum up column B plain</td>(.*?)</tr>", page, flags=re.S)
    assert cells is not None
    answers = re.findall(r'<td( class="\w+")?><code>(.*?)</code>', cells[1])
    assert answers == [("", "=SUM(B:B)"), (' class="wrong"', "=B"), (' class="right"', "=SUM(B:B)")]


def test_beginnings_of_long_answers_are_neither_right_nor_wrong(make):
    run = make()
    results = {when: {"answers": [sample("=B", "plain")]} for when in ("before", "after")}
    page = report_html([replace(run, info=replace(run.info, results=results))])
    assert page.count('class="sampled"><code>=B') == 2 and 'class="wrong"' not in page


@pytest.mark.parametrize("answers", [None, "x", [1], [{"prompt": 3, "answer": []}]])
def test_damaged_answers_do_no_harm(make, answers):
    run = make()
    results = {when: {"answers": answers} for when in ("before", "after")}
    damaged = ReportedRun(run.recording, replace(run.info, results=results), [])
    assert "<h2>" in report_html([damaged])


def test_the_page_loads_nothing(make):
    page = report_html([make()])
    assert "default-src 'none'" in page
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", without_scripts(page))
    assert not re.search(r"<script[^>]+src=", page)


@pytest.mark.parametrize("where", ["text", "name"])
def test_text_of_a_stranger_is_text(make, where):
    hostile = HOSTILE.replace("/", "") if where == "name" else HOSTILE
    page = report_html([make(**{where: hostile})])
    outside = without_scripts(page)
    assert "alert(" in outside
    assert "<img" not in outside
    assert "<script>alert" not in page


def test_a_long_run_stays_small(make):
    assert len(report_html([make(updates=20_000)])) < 5e6


def test_a_run_without_updates_is_refused(make):
    with pytest.raises(UsageError, match="no update was made"):
        report_html([make(updates=0)])


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_draws_all_figures(make, tmp_path):
    dom = seen(report_html([make("one"), make("two", text=HOSTILE)]), tmp_path)
    canvases = re.search(r'data-canvases="(\d+)"', dom)
    assert canvases is not None
    assert int(canvases[1]) >= 3  # loss, rate, gradient norm; the others were not recorded
    assert "<img" not in without_scripts(dom)


def test_the_command(make, tmp_path, monkeypatch, capsys):
    make()
    monkeypatch.chdir(tmp_path)
    assert main(["report", "one"]) == 0
    assert (tmp_path / "one.html").read_text().startswith("<!DOCTYPE html>")
    assert main(["report", "one"]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["report", "one", "-o", "a.png"]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_verdict_stands_above_the_figures(make):
    page = without_scripts(report_html([make()]))
    assert page.index("Verdict: healthy.") < page.index("data-root-id") < page.index("Configuration")


def test_each_figure_names_its_axis_and_amounts_begin_at_zero(make):
    from bokeh.models import Plot

    plots = list(figures([make().recording], ["one"]).select({"type": Plot}))
    by_title = {plot.title.text: plot for plot in plots}
    assert {plot.xaxis.axis_label for plot in plots} == {"update"}
    assert by_title["peak memory, GB"].y_range.start == 0
