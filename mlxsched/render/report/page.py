"""The page of a report: figures above, and for each run its verdict, results, events, plan and configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from mlxsched.analysis.diagnosis import Diagnosis, is_healthy
from mlxsched.render.report.figures import figures
from mlxsched.runs.info import RunInfo
from mlxsched.runs.json_file import finite_number
from mlxsched.runs.recording import Recording
from mlxsched.text import counted, printable, without_controls

MOST_EVENTS = 500
_LONGEST = 300  # characters of a value
_MEASURES = (
    ("loss", "validation loss"),
    ("perplexity", "perplexity"),
    ("test_loss", "test loss"),
    ("test_perplexity", "test perplexity"),
    ("exact_match", "test exact match"),
)


@dataclass(frozen=True)
class ReportedRun:
    """A run with its records and what was found in them."""

    recording: Recording
    info: RunInfo
    findings: Sequence[Diagnosis]

    @property
    def name(self) -> str:
        """The name of the run's directory, without control characters."""
        return without_controls(self.recording.name)


def report_html(runs: Sequence[ReportedRun]) -> str:
    """The report of ``runs`` as one HTML page. It loads nothing: scripts and styles are inside, and a policy forbids more.

    All text of a run, which may come from a stranger, is escaped.

    Raises:
        UsageError: bokeh is not installed, or a run has no update.
    """
    plots = figures([run.recording for run in runs], [run.name for run in runs])
    from bokeh.embed import components
    from bokeh.resources import Resources
    from jinja2 import Environment
    from markupsafe import Markup

    from mlxsched import __version__

    script, body = components(plots)
    code = Resources(mode="inline", components=["bokeh", "bokeh-widgets"])  # the others would triple the file
    template = Environment(autoescape=True).from_string(
        files(__package__).joinpath("page.html").read_text("utf-8")
    )
    return template.render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        version=__version__,
        resources=Markup(code.render_js() + script),  # noqa: S704  made by bokeh, which escapes what is in it
        figures=Markup(body),  # noqa: S704  likewise
        runs=[_described(run) for run in runs],
    )


def _described(run: ReportedRun) -> dict[str, Any]:
    """What the template shows of a run."""
    info = run.info
    origins = info.origins
    return {
        "name": run.name,
        "status": info.status,
        "updates": counted(info.update, "update"),
        "message": printable(info.message, _LONGEST),
        "healthy": is_healthy(run.findings),
        "findings": run.findings,
        "results": _results(info),
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
        (name, _measure(before.get(key)), _measure(after[key])) for key, name in _MEASURES if key in after
    ]


def _measure(value: object) -> str:
    number = finite_number(value)
    return "-" if number is None else f"{number:.4g}"


def _shown(value: object) -> str:
    return printable(value if isinstance(value, str) else repr(value), _LONGEST)
