"""``mlxsched push``: the adapter, with a model card, to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from mlxsched.cli.output import print_json, say


@click.command()
@click.argument("run", type=Path)
@click.argument("repo")
@click.option("--base-model", help="The model's name on the Hub, if the run does not know it.")
@click.option("--license", "licence", help="License of the adapter.  [default: the model's]")
@click.option("--private", is_flag=True, help="Create a private repository.")
@click.option("--final", is_flag=True, help="Use the last adapter instead of the best.")
@click.option("--dry-run", type=Path, metavar="DIR", help="Write the files to DIR; upload nothing.")
@click.option("--force", is_flag=True, help="Overwrite files in DIR that mlxsched did not write.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(run: Path, as_json: bool, **options: Any) -> None:
    """Upload the adapter of the run in directory RUN to the repository REPO (OWNER/NAME) on the Hub.

    Also uploads a model card (base model, results, license, how to load it), a picture of the schedule, and the
    configuration without this machine's paths. To look at everything first, use --dry-run. Log in with `hf auth login`.

    \b
    Examples:
      mlxsched push runs/laptop-001 me/formulas-lora --dry-run card
      mlxsched push runs/laptop-001 me/formulas-lora --private
    """
    from mlxsched.export.adapter import open_adapter
    from mlxsched.export.card import write_repository
    from mlxsched.export.hub import check_name, upload

    check_name(options["repo"])
    adapter = open_adapter(run, final=options["final"])
    with TemporaryDirectory() as temporary:
        folder = options["dry_run"] or Path(temporary)
        files = write_repository(
            adapter,
            folder,
            repo=options["repo"],
            base_model=options["base_model"],
            licence=options["licence"],
            force=options["force"],
        )
        url = (
            None if options["dry_run"] else upload(folder, files, options["repo"], private=options["private"])
        )
    if as_json:
        print_json(
            {
                "repo": options["repo"],
                "url": url,
                "path": str(options["dry_run"]) if options["dry_run"] else None,
                "files": files,
            }
        )
        return
    say(url or "\n".join(str(folder / name) for name in files))
