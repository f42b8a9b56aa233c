"""The end of a run: the results, where the adapter is, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from mlxsched.cli.output import say, table
from mlxsched.runs.info import measures
from mlxsched.runs.recording import Recording, read_recording
from mlxsched.runs.summary import training_seconds
from mlxsched.text import clock, counted

if TYPE_CHECKING:
    from mlxsched.runs.directory import RunDirectory
    from mlxsched.training.progress import Progress

MEASURES = (
    ("loss", "validation loss", "{:.4f}"),
    ("perplexity", "perplexity", "{:.4g}"),
    ("test_loss", "test loss", "{:.4f}"),
    ("test_perplexity", "test perplexity", "{:.4g}"),
    ("exact_match", "test exact match", "{:.1%}"),
)


SHORT_PROMPT = 100  # characters of a system prompt that fits into a command


class Took(NamedTuple):
    """Seconds of this process from loading to the end, and whether it continued a run that had begun before."""

    seconds: float | None = None
    resumed: bool = False


_UNKNOWN = Took()


def show_results(run: RunDirectory, progress: Progress, took: Took = _UNKNOWN) -> None:
    """Print the measures before and after the run and the next commands on stdout."""
    from mlxsched.training.policies.time_budget import without_former_length

    before, after = measures(progress.results, "before"), measures(progress.results, "after")
    rows = list(_rows(before, after))
    if rows:
        table(rows, header=("", "before", "after"), title="Results")
    recording = read_recording(run.path)
    updates, tokens = counted(progress.update, "update"), counted(progress.tokens, "token")
    say(f"{updates}, {tokens}; {_times(recording, took, 'test_loss' in after)}")
    for decision in _lasting(decisions(progress)):
        say(f"At update {decision['at']}: {without_former_length(decision['reason'])}.")
    if progress.ended:
        say(f"Ended early: {progress.ended}.")
    for line in verdict(run, progress, recording):
        say(line)
    for line in _others(run, progress):
        say(line)
    best = f" (the best, after update {progress.best_update})" if progress.best_update is not None else ""
    if progress.best_average:
        best = f" (the best: average {progress.best_average} after update {progress.best_update})"
    say(f"Adapter{best}: {run.adapters}")
    for kept in earlier_ends(run):
        say(f"Before the extension or cooldown: {kept}")
    say("\nNext:")
    given = _system(run)
    for line in next_commands(run, progress.best_update, given):
        say(f"  {line}")
    if given is not None:
        say("The rows begin with a system prompt. generate and chat need the same one: --system")


def _times(recording: Recording, took: Took, measured: bool) -> str:
    """The time that `mlxsched runs` shows, and the time that --max-time limits; ``measured``: whether test rows were measured."""
    text = f"training {clock(training_seconds(recording))}"
    if took.seconds is None:
        return text
    if took.resumed:
        return f"{text}; {clock(took.seconds)} since the resume"
    also = "loading and the test rows" if measured else "loading"
    return f"{text}; {clock(took.seconds)} in all, with {also}"


def _system(run: RunDirectory) -> str | None:
    """The system prompt that the model was trained with."""
    from mlxsched.data.options import DataOptions, Features
    from mlxsched.data.system_prompt import system_prompt

    config = run.info.config
    data, chat = config.get("data"), config.get("chat_feature")
    if not isinstance(data, str) or config.get("hf_dataset"):
        return None
    return system_prompt(data, DataOptions(features=Features(chat=str(chat or Features.chat))))


def earlier_ends(run: RunDirectory) -> list[str]:
    """The directories that hold the run as it was before it was made longer or cooled down."""
    return [str(run.path / request.kept) for request in run.info.requests if request.kept]


def decisions(progress: Progress) -> list[dict[str, Any]]:
    """The changes of the run's length, in order: after which update, to how many, and why."""
    return [{key: one[key] for key in ("at", "updates", "reason")} for one in progress.revisions]


def _lasting(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``made`` with only the last decision of a time budget: there may be dozens, each shown when it was made."""
    from mlxsched.training.policies.time_budget import REASON

    timed = [one for one in made if one["reason"].startswith(REASON)]
    return [one for one in made if one not in timed[:-1]]


def _others(run: RunDirectory, progress: Progress) -> Iterator[str]:
    """A line for the average and one for the snapshots, where there are any."""
    from mlxsched.training.policies.snapshots import snapshots_in

    average = measures(progress.results, "average")
    if average:
        loss = f", validation loss {average['loss']:.4f}" if "loss" in average else ""
        last = (
            "" if progress.evaluated_loss is None else f"; the last adapter has {progress.evaluated_loss:.4f}"
        )
        yield f"Average {run.info.config.get('average')}{loss}{last} ({run.path / 'adapters_average'})"
    snapshots = snapshots_in(progress.results)
    best = next((one for one in snapshots if one["best"]), None)
    if snapshots:
        which = (
            f", the best after update {best['update']} (validation loss {best['loss']:.4f})" if best else ""
        )
        yield f"Snapshots: {len(snapshots)} in {run.path / 'snapshots'}{which}"


def _rows(before: Mapping[str, float], after: Mapping[str, float]) -> Iterator[tuple[str, str, str]]:
    for key, name, form in MEASURES:
        if key in after:
            yield name, form.format(before[key]) if key in before else "-", form.format(after[key])


def verdict(run: RunDirectory, progress: Progress, recording: Recording | None = None) -> list[str]:
    """One to three lines: the run is healthy, or what is wrong with it and the fix. ``recording`` need not be read if known."""
    from mlxsched.analysis.diagnosis import diagnose
    from mlxsched.analysis.diagnosis.histories import run_history
    from mlxsched.analysis.diagnosis.verdict import failure, headline
    from mlxsched.analysis.diagnosis.verdict import verdict as lines_of

    history = replace(run_history(run, recording), results=progress.results, best_update=progress.best_update)
    findings = diagnose(history)
    failed = failure(history, findings)
    return lines_of(headline(findings, progress.update, failed), findings)


def next_commands(run: RunDirectory, best_update: int | None = None, system: str | None = None) -> list[str]:
    """Commands that look at the run and use its adapter; an adapter that was never improved is not suggested for use.

    ``system`` is the system prompt of its rows, without which the adapter answers badly.
    """
    from mlxsched.analysis.diagnosis.verdict import untrained

    here = shlex.quote(str(run.path))
    if untrained(best_update):
        return [f"mlxsched diagnose {here}", f"mlxsched plot {here}"]
    text = "TEXT" if system and len(system) > SHORT_PROMPT else shlex.quote(system or "")
    first = "" if system is None else f" --system {text}"
    return [
        f"mlxsched generate {here}{first} --prompt 'Your request'",
        f"mlxsched eval {here}",
        f"mlxsched plot {here}",
        f"mlxsched fuse {here}",
    ]


def results_json(run: RunDirectory, progress: Progress, took: Took = _UNKNOWN) -> dict[str, Any]:
    """The end of a run as plain data; ``seconds`` are those of the updates alone."""
    return {
        "run": str(run.path),
        "adapter": str(run.adapters),
        "status": run.info.status,
        "updates": progress.update,
        "tokens": progress.tokens,
        "seconds": progress.seconds,
        "training_seconds": training_seconds(read_recording(run.path)),
        "total_seconds": took.seconds,
        "best": progress.best,
        "ended": progress.ended,
        "decisions": decisions(progress),
        "earlier": earlier_ends(run),
        "average": progress.results.get("average"),
        "snapshots": progress.results.get("snapshots", []),
        "short_cuts": run.info.short_cuts,
        "notes": [record.get("message") for record in run.read_metrics() if record.get("code") == "note"],
        **{key: measures(progress.results, key) for key in ("before", "after")},
    }
