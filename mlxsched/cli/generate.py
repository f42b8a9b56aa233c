"""``mlxsched generate``: answer a prompt with a run's model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mlxsched.cli.output import print_json, say, waiting
from mlxsched.errors import UsageError


@click.command()
@click.argument("run", type=Path)
@click.option("-p", "--prompt", help="The prompt; - reads it from standard input.")
@click.option("--stdin", "each_line", is_flag=True, help="Answer each line of standard input.")
@click.option("--system", help="The system prompt.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=256, show_default=True)
@click.option(
    "--temp",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Sampling temperature; 0 is greedy.",
)
@click.option("--seed", type=click.IntRange(min=0, max=2**64 - 1), default=0, show_default=True)
@click.option("--base", is_flag=True, help="Use the model without the adapter.")
@click.option("--final", is_flag=True, help="Use the last adapter instead of the best.")
@click.option("--model", help="Where the run's model is now, if it was moved.")
@click.option("--trust-remote-code", is_flag=True, help="Let the model's repository run its own code.")
@click.option("--json", "as_json", is_flag=True, help="Print prompt and answer as JSON.")
def command(run: Path, as_json: bool, **options: Any) -> None:
    """Answer a prompt with the adapter of the run in the directory RUN.

    RUN may also be the directory of one of the run's adapters, such as a snapshot or a checkpoint.

    \b
    Examples:
      mlxsched generate runs/laptop-001 --prompt "Add up column B"
      echo "Add up column B" | mlxsched generate runs/laptop-001 --prompt - --json
      mlxsched generate runs/laptop-001 --stdin --system "Answer with a formula." < prompts.txt
    """
    from mlxsched.model.conversation import Conversation, seed_sampling
    from mlxsched.runs.directory import RunDirectory, split_adapter
    from mlxsched.training.inference import load_run_model
    from mlxsched.training.recorded import config_of

    prompts = _prompts(options["prompt"], options["each_line"])
    place, adapter = split_adapter(run)
    directory = RunDirectory.open(place)
    config = config_of(
        directory, trust_remote_code=options["trust_remote_code"], need=("model",), model=options["model"]
    )
    with waiting(f"Loading {config.model}"):
        loaded = load_run_model(
            directory, config, base=options["base"], final=options["final"], adapter=adapter
        )
    answers = []
    for text in prompts:
        seed_sampling(options["seed"])
        conversation = Conversation(
            loaded.model,
            loaded.tokenizer,
            system=options["system"],
            max_tokens=options["max_tokens"],
            temperature=options["temp"],
        )
        pieces = conversation.ask(text)
        if as_json:
            answers.append({"prompt": text, "answer": "".join(pieces)})
            continue
        for piece in pieces:
            say(piece, nl=False)
        say()
    if as_json:
        print_json(answers if options["each_line"] else answers[0])


def _prompts(prompt: str | None, each_line: bool) -> list[str]:
    """The prompts to answer: the one given, all of standard input, or each of its lines that is not empty."""
    if (prompt is None) != each_line:
        raise UsageError("give either --prompt TEXT or --stdin.")
    found = (
        sys.stdin.read().splitlines() if each_line else [sys.stdin.read() if prompt == "-" else str(prompt)]
    )
    found = [text.strip() for text in found if text.strip()]
    if not found:
        raise UsageError(
            "the prompt is empty. Give one with --prompt, or lines on standard input with --stdin."
        )
    return found
