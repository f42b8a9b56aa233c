"""``mlxsched check``: whether the schedule of a run is healthy, and how to fix it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlxsched.cli.output import console, note, picture, print_json, say
from mlxsched.text import counted

if TYPE_CHECKING:
    from mlxsched.analysis.schedule_health import ScheduleFinding
    from mlxsched.cli.check_subject import Subject
    from mlxsched.render.chart import Mark

STDOUT = "-"
NARROWEST = 60  # columns that the picture takes


@click.command()
@click.argument("subject", metavar="X")
@click.option("--steps", metavar="N", type=click.IntRange(min=1), help="Updates of the run.")
@click.option(
    "--optimizer",
    metavar="NAME",
    type=click.Choice(["adam", "adamw", "muon", "sgd", "adafactor", "lion"]),
    default="adamw",
    help="Optimizer that a schedule alone is for. [adamw]",
)
@click.option(
    "--fix",
    is_flag=False,
    flag_value=STDOUT,
    metavar="[FILE]",
    help="Print the fixed spec or YAML, or write it to FILE.",
)
@click.option("--force", is_flag=True, help="Overwrite the file that --fix names.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    subject: str, steps: int | None, optimizer: str, fix: str | None, force: bool, as_json: bool
) -> None:
    """Say whether a schedule suits its run, and how to fix it.

    X is a spec, the name of a preset or a schedule, a config file (ours or mlx-lm's), or a JSON file of Hugging
    Face TrainingArguments. Exits with 3 if there are problems.

    \b
    Examples:
      mlxsched check "warmup_cosine(peak=2e-4, steps=1000, warmup=50)"
      mlxsched check laptop
      mlxsched check lora_config.yaml --fix fixed.yaml
    """
    from mlxsched.analysis.schedule_health import is_healthy
    from mlxsched.cli.check_subject import find_subject
    from mlxsched.errors import ChecksFailed

    found = find_subject(subject, steps, optimizer)
    findings = findings_of(found)
    healthy = is_healthy(findings)
    fixed = fixed_text(found, findings) if fix is not None and not healthy else None
    if as_json:
        more = {"fixed": fixed} if fixed is not None else {}
        print_json({"healthy": healthy, "findings": [one.to_dict() for one in findings], **more})
    else:
        _show(found, findings, stderr=fixed is not None and fix == STDOUT)
    if fixed is not None and (fix != STDOUT or not as_json):
        _give(found, fixed, fix or STDOUT, force)
    if healthy:
        note(f"{subject} is healthy over {counted(found.facts.updates, 'update')}.")
        return
    problems = sum(one.severity != "note" for one in findings)
    raise ChecksFailed(f"{subject} has {counted(problems, 'problem')}, listed above.")


def findings_of(subject: Subject) -> list[ScheduleFinding]:
    """All findings about a subject, problems with their fixes, in the order of their updates."""
    from mlxsched.analysis.schedule_health import schedule_health
    from mlxsched.analysis.schedule_repair import with_fixes

    found = with_fixes(
        schedule_health(subject.schedule, subject.facts), subject.schedule, subject.facts, subject.settings
    )
    found += [] if subject.reasoned else subject.findings
    kept = [one for one in found if one.severity != "note" or not subject.reasoned]
    return sorted(kept, key=lambda one: one.update)


def fixed_text(subject: Subject, findings: list[ScheduleFinding]) -> str:
    """The spec or the YAML with every problem fixed."""
    from mlxsched.analysis.schedule_repair import all_changes, as_yaml, repaired
    from mlxsched.config.yaml_edit import with_values

    if subject.settings is None:
        return f"{repaired(subject.schedule, subject.facts)!r}\n"
    changes = all_changes(findings, subject.schedule, subject.facts, subject.settings)
    return with_values(subject.text, changes, {key: as_yaml({key: changes[key]}) for key in changes})


def _give(subject: Subject, text: str, file: str, force: bool) -> None:
    from mlxsched.cli.files import write_new

    if file == STDOUT:
        say(text, nl=False)
        return
    write_new(Path(file), text, force=force)
    again = file if subject.settings is not None else f'"$(cat {file})"'  # a spec alone is not a config file
    note(f"Wrote {file}. Check it with `mlxsched check {again}`.")


def _show(subject: Subject, findings: list[ScheduleFinding], *, stderr: bool) -> None:
    """The small picture with the places of the problems, and the findings beneath.

    On ``stderr`` if stdout has the fixed text, so that the text can be redirected to a file.
    """
    from mlxsched.render.curves import small_picture

    tell = note if stderr else say
    for line in subject.assumed:
        note(f"{subject.name}: {line}")
    if console(stderr=stderr).width >= NARROWEST:
        updates = subject.facts.updates
        picture(
            small_picture(subject.schedule, steps=updates, marks=marks_of(findings, updates)) + "\n",
            stderr=stderr,
        )
    for one in findings:
        tell(f"{one.severity} {one.code}, update {one.update}: {one.evidence}.")
        if one.why:
            tell(f"    {one.why}.")
        for line in one.fix.splitlines():
            tell(f"    fix: {line}")


def marks_of(findings: Sequence[ScheduleFinding], updates: int) -> list[Mark]:
    """A mark at each update of a problem, with the codes of the problems there."""
    from mlxsched.render.chart import Mark

    places: dict[int, list[str]] = {}
    for one in findings:
        if one.severity != "note" and 0 <= one.update <= updates:
            places.setdefault(one.update, []).append(one.code)
    return [Mark(update, ", ".join(dict.fromkeys(codes))) for update, codes in places.items()]
