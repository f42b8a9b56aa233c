"""``mlxsched report``: runs as one HTML page, or their main picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from mlxsched.cli.output import note, waiting
from mlxsched.text import counted


@click.command()
@click.argument("runs", metavar="RUN...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="An .html file, or .png, .svg, .pdf for the picture alone. [NAME.html; NAME-and-OTHER.html for two runs]",
)
@click.option("--force", is_flag=True, help="Overwrite the file.")
def command(runs: tuple[Path, ...], file: Path | None, force: bool) -> None:
    """Write a report of one or several runs: one HTML file that needs no network.

    It shows the losses and the learning rate with linked zoom, gradient norm, throughput and memory, the verdict, the
    results, sampled test answers before and after, events, plan and configuration. Several runs are drawn in the same figures. Needs the extra "report":
    pip install 'mlxsched[report]'.

    \b
    Examples:
      mlxsched report runs/laptop-001
      mlxsched report runs/laptop-001 runs/laptop-002 -o both.html
      mlxsched report runs/laptop-001 -o loss.png
    """
    from mlxsched.cli.files import write_new

    with waiting(f"Reading and drawing {counted(len(runs), 'run')}"):
        from mlxsched.render.report import ReportedRun, report_html

        reported = [ReportedRun.read(run) for run in runs]
        target = file or Path(f"{_name([run.name for run in reported])}.html")
        if target.suffix.lower() in (".png", ".svg", ".pdf"):
            _draw(runs, target, force)
        else:
            write_new(target, report_html(reported), force=force)
    note(f"Wrote {target}.")


def _name(runs: Sequence[str]) -> str:
    """The name of the report of ``runs``.

    >>> _name(["a"]), _name(["a", "b"]), _name(["a", "b", "c"])
    ('a', 'a-and-b', 'a-and-2-more')
    """
    first, *more = runs
    return first if not more else f"{first}-and-{more[0] if len(more) == 1 else f'{len(more)}-more'}"


def _draw(runs: tuple[Path, ...], target: Path, force: bool) -> None:
    from mlxsched.errors import UsageError
    from mlxsched.render.image import save
    from mlxsched.render.run_chart import run_chart
    from mlxsched.runs.recording import read_recording

    if target.exists() and not force:
        raise UsageError(f"{target} exists. Choose another name, or add --force to overwrite it.")
    save(run_chart([read_recording(run) for run in runs]), target)
