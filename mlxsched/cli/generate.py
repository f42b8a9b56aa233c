"""``mlxsched generate``: answer a prompt with a run's model."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mlxsched.cli.output import print_json, say
from mlxsched.errors import UsageError


@click.command()
@click.argument("run", type=Path)
@click.option("-p", "--prompt", required=True, help="The prompt; - reads it from standard input.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--temp", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--seed", type=click.IntRange(min=0, max=2**64 - 1), default=0, show_default=True)
@click.option("--base", is_flag=True, help="Use the model without the adapter.")
@click.option("--final", is_flag=True, help="Use the last adapter instead of the best.")
@click.option("--model", help="Where the run's model is now, if it was moved.")
@click.option("--trust-remote-code", is_flag=True, help="Let the model's repository run its own code.")
@click.option("--json", "as_json", is_flag=True, help="Print prompt and answer as JSON.")
def command(
    run: Path,
    prompt: str,
    max_tokens: int,
    temp: float,
    seed: int,
    base: bool,
    final: bool,
    model: str | None,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Answer a prompt with the adapter of the run in the directory RUN.

    \b
    Examples:
      mlxsched generate runs/laptop-001 --prompt "Add up column B"
      echo "Add up column B" | mlxsched generate runs/laptop-001 --prompt - --json
    """
    from mlxsched.runs.directory import RunDirectory
    from mlxsched.training.inference import answer, load_run_model
    from mlxsched.training.run import config_of

    text = sys.stdin.read().strip() if prompt == "-" else prompt
    if not text.strip():
        raise UsageError("the prompt is empty. Give one with --prompt.")
    directory = RunDirectory.open(run)
    config = config_of(directory, trust_remote_code=trust_remote_code, need=("model",), model=model)
    loaded = load_run_model(directory, config, base=base, final=final)
    pieces = answer(loaded, text, max_tokens=max_tokens, temperature=temp, seed=seed)
    if as_json:
        print_json({"prompt": text, "answer": "".join(pieces)})
        return
    for piece in pieces:
        say(piece, nl=False)
    say()
