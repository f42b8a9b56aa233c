"""``mlxsched diagnose``: what went wrong in a run, from its records or from another tool's log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlxsched.cli.output import note, print_json, say
from mlxsched.text import counted

if TYPE_CHECKING:
    from mlxsched.analysis.diagnosis import Diagnosis


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run: Path, as_json: bool) -> None:
    """Say what went wrong in a run, with the evidence and the fix.

    RUN is a run directory, finished or not, or a log of another trainer: mlx-lm's output, transformers'
    trainer_state.json, the lines that TRL and Unsloth print, JSON lines or CSV. Exits with 3 if there are problems;
    notes do not count. In the JSON, "healthy" is false if there are problems, or if training made the model worse or did
    not improve it.

    \b
    Examples:
      mlxsched diagnose runs/laptop-001
      mlxsched diagnose outputs/checkpoint-500/trainer_state.json
      mlx_lm.lora -c lora.yaml | tee lora.log; mlxsched diagnose lora.log
    """
    from mlxsched.analysis.diagnosis import diagnose, is_healthy
    from mlxsched.analysis.diagnosis.histories import history_of
    from mlxsched.analysis.diagnosis.verdict import HEALTHY, failure, headline, verdict
    from mlxsched.errors import ChecksFailed

    history = history_of(run)
    findings = diagnose(history)
    healthy = is_healthy(findings)
    failed = failure(history, findings)
    head = headline(findings, history.made, failed)
    if as_json:
        found = [finding.to_dict() for finding in findings]
        print_json({"healthy": healthy and not failed, "findings": found, "verdict": verdict(head, findings)})
    else:
        for finding in findings:
            show_finding(finding)
    if healthy:
        over = f" is healthy over {counted(history.made, 'update')}" if head == HEALTHY else f": {head}"
        note(f"{run}{over}.")
        return
    problems = sum(finding.severity != "note" for finding in findings)
    raise ChecksFailed(f"{run} has {counted(problems, 'problem')}, listed above.")


def show_finding(finding: Diagnosis) -> None:
    """Print a finding with its reason and its fix."""
    say(f"{finding.severity} {finding.code}, update {finding.update}: {finding.evidence}.")
    say(f"    {finding.why} (confidence {finding.confidence:.0%}).")
    say(f"    fix: {finding.fix}")
