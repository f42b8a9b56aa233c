"""``mlxsched env --tune``: times the optimizations of a training on this device, and shows the candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlxsched.cli.output import note, say, table
from mlxsched.text import rounded

SECONDS = 20.0  # that timing may take: no run is waiting


def tuning_of(
    *, preset: str | None, config: str | None, model: str | None, data: str | None
) -> dict[str, Any]:
    """Time the candidates for these settings, and store the choice in the cache for later runs."""
    from mlxsched.cli.train import make_session
    from mlxsched.config import load_config
    from mlxsched.training.acceleration import training_path
    from mlxsched.training.tuning.tuner import Tuner

    flags = {key: value for key, value in {"model": model, "data": data}.items() if value is not None}
    if preset is None and config is None:
        preset = "laptop"
    loaded = load_config(preset=preset, file=Path(config) if config else None, flags=flags)
    session = make_session(loaded)
    note(f"Timing the optimizations, for at most {SECONDS:g} s ...")
    tuner = Tuner(session, most=SECONDS, share=0.0, fresh=True)
    training_path(session, note, tuner)
    record = tuner.record()
    if not record["note"] and not record["cases"]:
        reason = "this model has no candidates for these rows" if session.config.fast else "`fast` is off"
        record["note"] = f"not timed: {reason}"
    return {"model": session.config.model, "data": session.config.data, **record}


def show_tuning(found: dict[str, Any]) -> None:
    """The candidates as a table."""
    say()
    if found["note"]:
        say(f"{found['note']}. Nothing was stored.")
        return
    lines = [
        (
            case["kind"],
            case["name"],
            "-" if case["seconds"] is None else f"{rounded(1000 * case['seconds'], 3)} ms",
            "-" if not case["gain"] else f"{case['gain']:.2f}x",
            "chosen" if case["chosen"] else case["refused"],
        )
        for case in found["cases"]
    ]
    table(
        lines, header=(f"{found['model']}, {found['data']}", "candidate", "its part of a step", "speed", "")
    )
    note(
        "Speeds are relative to the first candidate of each kind, the default. Another one must be 1.05 times as fast. Runs "
        "with this model and these shapes use the choice; --no-tune uses the defaults."
    )
    if any(case["gain"] is None for case in found["cases"]):
        note(
            "There was not enough time for all candidates, so the choice was not stored. Try again when the machine is less busy."
        )
