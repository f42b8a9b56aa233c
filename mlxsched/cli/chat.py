"""``mlxsched chat``: talk with the model of a run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.output import console, note, print_json, say
from mlxsched.errors import UsageError
from mlxsched.text import without_controls

if TYPE_CHECKING:
    from mlxsched.model.conversation import Conversation

COMMANDS = {
    "/help": "show these commands",
    "/reset": "forget what was said",
    "/system TEXT": "start over under another system prompt; without TEXT, under none",
    "/quit": "leave, as Ctrl-D does",
}
_WIDE = 80  # columns from which two answers stand side by side


@click.command()
@click.argument("run", type=Path)
@click.option("--system", help="The system prompt.")
@click.option(
    "--compare", is_flag=True, help="Also show the answer of the model without the adapter, side by side."
)
@click.option("--base", is_flag=True, help="Chat with the model without the adapter.")
@click.option("--final", is_flag=True, help="Use the last adapter instead of the best.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=512, show_default=True)
@click.option(
    "--temp",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Sampling temperature; 0 is greedy.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--trust-remote-code", is_flag=True, help="Let the model's repository run its own code.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole conversation as JSON at the end.")
def command(run: Path, as_json: bool, **options: Any) -> None:
    """Chat with the model of the run in directory RUN; it remembers what was said.

    Ctrl-C stops an answer and keeps the part so far; Ctrl-D exits. A line that begins with / is a command; /help
    lists them. If standard input is not a terminal, each of its lines is a request.

    \b
    Examples:
      mlxsched chat runs/laptop-001
      mlxsched chat runs/laptop-001 --compare --system "Answer with a formula."
      printf 'Add up column B\\nAnd column C?\\n' | mlxsched chat runs/laptop-001 --json
    """
    from mlxsched.model.conversation import seed_sampling

    if options["compare"] and options["base"]:
        raise UsageError(
            "--compare already shows the answers of the model without the adapter. Leave out --base."
        )
    note("Loading ...")
    sides = _sides(
        run,
        compare=options["compare"],
        base=options["base"],
        final=options["final"],
        trust=options["trust_remote_code"],
    )
    settings = {
        "system": options["system"],
        "max_tokens": options["max_tokens"],
        "temperature": options["temp"],
    }
    seed_sampling(options["seed"])
    chat = Chat([(name, make(**settings)) for name, make in sides], quiet=as_json)
    chat.run()
    if as_json:
        print_json(chat.turns)


def _sides(run: Path, *, compare: bool, base: bool, final: bool, trust: bool) -> list[tuple[str, Any]]:
    """Name and constructor of each partner. One model serves both, but where whole layers were trained."""
    from functools import partial

    from mlxsched.model.conversation import Conversation
    from mlxsched.runs.directory import RunDirectory, split_adapter
    from mlxsched.training.inference import load_run_model
    from mlxsched.training.recorded import config_of

    place, adapter = split_adapter(run)
    directory = RunDirectory.open(place)
    config = config_of(directory, trust_remote_code=trust, need=("model",))
    loaded = load_run_model(directory, config, base=base, final=final, adapter=adapter)
    tuned = ("base" if base else "tuned", partial(Conversation, loaded.model, loaded.tokenizer))
    if not compare:
        return [tuned]
    whole = config.fine_tune_type == "full"
    other = load_run_model(directory, config, base=True) if whole else loaded
    return [("base", partial(Conversation, other.model, other.tokenizer, base=not whole)), tuned]


class Chat:
    """The loop: reads requests, shows answers, obeys commands; ``turns`` is what was said."""

    def __init__(self, sides: list[tuple[str, Conversation]], *, quiet: bool) -> None:
        self.turns: list[dict[str, Any]] = []
        self._sides, self._quiet = sides, quiet
        self._interactive = sys.stdin.isatty() and sys.stdout.isatty()

    def run(self) -> None:
        """Until the input ends or /quit."""
        if self._interactive:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 - input() edits lines and remembers them once it is imported
            note("Type a request; /help lists commands, Ctrl-D leaves.")
        for line in self._lines():
            if line.startswith("/"):
                if not self._obey(line):
                    return
            elif line:
                self._answer(line)

    def _lines(self) -> Iterator[str]:
        if not self._interactive:
            yield from (line.strip() for line in sys.stdin)
            return
        while True:
            try:
                yield input("> ").strip()
            except EOFError:
                say()
                return
            except KeyboardInterrupt:
                note("\nCtrl-D or /quit leaves.")

    def _obey(self, line: str) -> bool:
        """Carry out a command; false for the one that ends the conversation."""
        name, _, rest = line.partition(" ")
        if name == "/quit":
            return False
        if name in ("/reset", "/system"):
            for _, side in self._sides:
                side.reset((rest.strip() or None) if name == "/system" else side.system)
            note("Started over.")
        else:
            if name != "/help":
                note(f"There is no command {name}.")
            for usage, what in COMMANDS.items():
                note(f"  {usage:<14} {what}")
        return True

    def _answer(self, prompt: str) -> None:
        answers = {name: "" for name, _ in self._sides}
        self.turns.append({"prompt": prompt, "answers": answers})
        try:
            if self._quiet:
                self._collect(prompt, answers)
            elif len(self._sides) > 1 and self._interactive and console().width >= _WIDE:
                self._beside(prompt, answers)
            else:
                self._below(prompt, answers)
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            note("\n(stopped)")
        except UsageError as error:  # the conversation is too long for the model: /reset goes on
            if not self._interactive:
                raise
            note(f"Error: {error} /reset starts over.")

    def _collect(self, prompt: str, answers: dict[str, str]) -> None:
        for _ in self._pieces(prompt, answers):
            pass

    def _pieces(self, prompt: str, answers: dict[str, str]) -> Iterator[tuple[str, str]]:
        """Name and piece, first of one partner, then of the other; ``answers`` grow along."""
        for name, side in self._sides:
            with contextlib.closing(side.ask(prompt)) as pieces:
                for piece in pieces:
                    answers[name] += piece
                    yield name, piece

    def _below(self, prompt: str, answers: dict[str, str]) -> None:
        last = ""
        for name, piece in self._pieces(prompt, answers):
            if len(self._sides) > 1 and name != last:
                say(f"{chr(10) if last else ''}[{name}]")
                last = name
            say(piece, nl=False)
            sys.stdout.flush()
        say()

    def _beside(self, prompt: str, answers: dict[str, str]) -> None:
        """Two columns, redrawn while the answers grow; at the end they are printed once."""
        from rich.live import Live

        screen = console()
        try:
            with Live(console=screen, transient=True, auto_refresh=False, vertical_overflow="crop") as live:
                for _ in self._pieces(prompt, answers):
                    live.update(_columns(answers), refresh=True)
        finally:
            screen.print(_columns(answers))


def _columns(answers: dict[str, str]) -> Any:
    from rich.table import Table
    from rich.text import Text

    grid = Table(*answers, box=None, pad_edge=False, expand=True)
    for column in grid.columns:
        column.ratio, column.overflow = 1, "fold"
    grid.add_row(*(Text(without_controls(answer)) for answer in answers.values()))
    return grid
