"""The page of a report: the verdict on each run, the figures, and results, events, plan and configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from mlxsched.analysis.diagnosis import Diagnosis, diagnose
from mlxsched.analysis.diagnosis.histories import run_history
from mlxsched.analysis.diagnosis.verdict import headline_of
from mlxsched.render.report.figures import figures
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.info import RunInfo
from mlxsched.runs.json_file import finite_number
from mlxsched.runs.recording import Recording, read_recording
from mlxsched.runs.summary import status_now
from mlxsched.text import counted, printable, without_controls

MOST_EVENTS = 500
MOST_ANSWERS = 20
_LONGEST_ANSWER = 1000
_TEMPLATES = ("page.html", "runs.html", "verdicts.html")
_LONGEST = 300  # characters of a value
_MEASURES = (
    ("loss", "validation loss", ".4f"),
    ("perplexity", "perplexity", ".4g"),
    ("test_loss", "test loss", ".4f"),
    ("test_perplexity", "test perplexity", ".4g"),
    ("exact_match", "test exact match", ".1%"),
)


@dataclass(frozen=True)
class ReportedRun:
    """A run with its records and what was found in them."""

    recording: Recording
    info: RunInfo
    findings: Sequence[Diagnosis]

    @classmethod
    def read(cls, path: Path) -> ReportedRun:
        """The run in ``path`` as it is now, finished or not.

        Raises:
            UserError: there is none, or it has recorded no update.
        """
        run, recording = RunDirectory.open(path), read_recording(path)
        return cls.of(run, recording)

    @classmethod
    def of(cls, run: RunDirectory, recording: Recording) -> ReportedRun:
        """``run`` with what ``recording`` says about it."""
        info = replace(run.info, status=status_now(run.path, run.info))
        return cls(recording, info, diagnose(run_history(run, recording)))

    @property
    def name(self) -> str:
        """The name of the run's directory, without control characters."""
        return without_controls(self.recording.name)

    @property
    def updates(self) -> int:
        """Updates made: the records are ahead of run.json while a run goes on."""
        train = self.recording.train
        return max(self.info.update, int(train["update"][-1]) + 1 if len(train) else 0)


def report_html(runs: Sequence[ReportedRun], *, live: str = "") -> str:
    """The report of ``runs`` as one HTML page. It loads nothing: scripts and styles are inside, and a policy forbids more.

    A page that `serve` keeps up to date has the version of its data in ``live``, and asks its own server for newer data.
    All text of a run, which may come from a stranger, is escaped.

    Raises:
        UsageError: bokeh is not installed, or a run has no update.
    """
    plots = figures([run.recording for run in runs], [run.name for run in runs])
    from bokeh.embed import components
    from bokeh.resources import Resources
    from markupsafe import Markup

    from mlxsched import __version__

    script, body = components(plots)
    code = Resources(mode="inline", components=["bokeh", "bokeh-widgets"])  # the others would triple the file
    return _rendered(
        "page.html",
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        version=__version__,
        resources=Markup(code.render_js() + script),  # noqa: S704  made by bokeh, which escapes what is in it
        figures=Markup(body),  # noqa: S704  likewise
        runs=[_described(run) for run in runs],
        live=live,
    )


def runs_html(runs: Sequence[ReportedRun]) -> str:
    """The part of the page below the figures: results, answers, events, plan and configuration of each run."""
    return _rendered("runs.html", runs=[_described(run) for run in runs])


def verdicts_html(runs: Sequence[ReportedRun]) -> str:
    """The part of the page above the figures: the state of each run, the verdict on it and the findings."""
    return _rendered("verdicts.html", runs=[_described(run) for run in runs])


def _rendered(name: str, **values: object) -> str:
    from jinja2 import DictLoader, Environment

    texts = {one: files(__package__).joinpath(one).read_text("utf-8") for one in _TEMPLATES}
    return Environment(autoescape=True, loader=DictLoader(texts)).get_template(name).render(**values)


def _described(run: ReportedRun) -> dict[str, Any]:
    """What the template shows of a run."""
    info = run.info
    origins = info.origins
    return {
        "name": run.name,
        "status": info.status,
        "updates": counted(run.updates, "update"),
        "best": _best(run.recording),
        "message": printable(info.message, _LONGEST),
        "verdict": headline_of(info, info.status, run.findings, run.updates, run.recording),
        "findings": run.findings,
        "results": _results(info),
        "answers": _answers(info),
        "events": [
            (notice.update, printable(notice.code), printable(notice.message, _LONGEST))
            for notice in run.recording.notices[:MOST_EVENTS]
        ],
        "events_title": counted(len(run.recording.notices), "event"),
        "plan": [
            (key, _shown(value)) for key, value in info.plan.items() if key not in ("findings", "notes")
        ],
        "config": [(key, _shown(value), _shown(origins.get(key, ""))) for key, value in info.config.items()],
    }


def _results(info: RunInfo) -> list[tuple[str, str, str]]:
    before, after = info.results.get("before"), info.results.get("after")
    if not isinstance(before, dict) or not isinstance(after, dict):
        return []
    return [
        (name, _measure(before.get(key), shown), _measure(after[key], shown))
        for key, name, shown in _MEASURES
        if key in after
    ]


def _best(recording: Recording) -> str:
    curve = recording.evaluations.curve("loss")
    if not curve.values:
        return ""
    best = min(range(len(curve.values)), key=curve.values.__getitem__)
    return f"{curve.values[best]:.4f} after {counted(curve.updates[best], 'update')}"


def _answers(info: RunInfo) -> list[dict[str, str]]:
    """Sampled test prompts with the answers before and after; empty where the run kept none."""
    results = [info.results.get(when) for when in ("before", "after")]
    before, after = map(_samples, results)
    # The beginning of a long answer never equals what was expected, so it says nothing about right and wrong.
    judged = any(isinstance(one, dict) and one.get("exact_match") is not None for one in results)
    return [
        {
            "prompt": _text(first.get("prompt")),
            "expected": _text(first.get("expected")),
            "before": _text(first.get("answer")),
            "after": _text(second.get("answer")),
            "judged": "yes" if judged else "",
        }
        for first, second in zip(before, after, strict=False)
        if first.get("prompt") == second.get("prompt")
    ][:MOST_ANSWERS]


def _samples(measured: object) -> list[dict[str, object]]:
    kept = measured.get("answers") if isinstance(measured, dict) else None
    return [one for one in kept if isinstance(one, dict)] if isinstance(kept, list) else []


def _text(value: object) -> str:
    return without_controls(value)[:_LONGEST_ANSWER].strip() if isinstance(value, str) else ""


def _measure(value: object, shown: str) -> str:
    number = finite_number(value)
    return "-" if number is None else f"{number:{shown}}"


def _shown(value: object) -> str:
    return printable(value if isinstance(value, str) else repr(value), _LONGEST)
