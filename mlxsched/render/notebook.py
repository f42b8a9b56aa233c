"""Schedules and runs in a notebook: pictures that Jupyter shows, and a run with its records as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from mlxsched.analysis.diagnosis import Diagnosis, diagnose
from mlxsched.analysis.diagnosis.histories import run_history
from mlxsched.analysis.diagnosis.verdict import headline_of
from mlxsched.render.chart import Chart
from mlxsched.render.curves import schedule_chart
from mlxsched.render.run_chart import run_chart
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Notice
from mlxsched.runs.info import RunInfo
from mlxsched.runs.recording import Columns, Recording, read_recording
from mlxsched.runs.summary import status_now
from mlxsched.schedules.base import Schedule
from mlxsched.text import counted, without_controls


@dataclass(frozen=True)
class Picture:
    """A chart that a notebook shows and `save` writes; needs matplotlib (the extra ``report``)."""

    chart: Chart

    def save(self, path: str | Path) -> None:
        """Write the picture; the suffix (.png, .svg or .pdf) says which format."""
        from mlxsched.render.image import save

        save(self.chart, Path(path))

    def _repr_svg_(self) -> str:
        from mlxsched.render.image import svg

        return svg(self.chart)

    def __str__(self) -> str:
        from mlxsched.render.terminal import draw

        return draw(self.chart)


def schedule_picture(schedule: Schedule, steps: int | None = None, *, log: bool = False) -> Picture:
    """The picture of a schedule over ``steps`` updates, by default its own."""
    return Picture(schedule_chart([(repr(schedule), schedule)], steps=steps, log=log))


def schedule_html(schedule: Schedule) -> str:
    """A schedule as a notebook shows it: its picture above its spec."""
    return f"{schedule_picture(schedule)._repr_svg_()}<br><code>{escape(repr(schedule))}</code>"


@dataclass(frozen=True)
class Run:
    """A run and its records: ``run.train["loss"]``, ``run.evaluations["loss"]`` are NumPy arrays.

    Attributes:
        path: the run directory.
        info: what ``run.json`` says.
        recording: all records; `follow` gives those of a run that goes on.
    """

    path: Path
    info: RunInfo
    recording: Recording

    @property
    def train(self) -> Columns:
        """One row for each update, with the fields of `mlxsched.runs.events.UpdateMade`."""
        return self.recording.train

    @property
    def evaluations(self) -> Columns:
        """One row for each evaluation."""
        return self.recording.evaluations

    @property
    def notices(self) -> Sequence[Notice]:
        """Spikes, rollbacks, notes."""
        return self.recording.notices

    def diagnose(self) -> list[Diagnosis]:
        """What is wrong with the run; empty, or notes alone, for a healthy one."""
        return diagnose(run_history(RunDirectory(self.path, self.info), self.recording))

    def plot(self, *, log: bool = False) -> Picture:
        """The learning rate beside the losses."""
        return Picture(run_chart([self.recording], log=log))

    def follow(self) -> Run:
        """The run as it is now; only what was appended is read."""
        return Run(self.path, RunDirectory.open(self.path).info, self.recording.follow())

    def _repr_html_(self) -> str:
        name, status = escape(without_controls(self.recording.name)), escape(self.info.status)
        findings = self.diagnose() if len(self.train) else []
        items = "".join(f"<li><b>{finding.code}</b>: {escape(str(finding))}</li>" for finding in findings)
        verdict = headline_of(
            self.info, status_now(self.path, self.info), findings, self.info.update, self.recording
        )
        head = f"<b>{name}</b>: {status}, {counted(self.info.update, 'update')}, {escape(verdict or 'see below')}"
        picture = self.plot()._repr_svg_() if len(self.train) else ""
        return f"<div>{head}<ul>{items}</ul>{picture}</div>"


def read_run(path: str | Path) -> Run:
    """Read the run in the directory ``path``, finished or not.

    Raises:
        UserError: there is no run, or its files are damaged.
    """
    path = Path(path)
    return Run(path, RunDirectory.open(path).info, read_recording(path))
