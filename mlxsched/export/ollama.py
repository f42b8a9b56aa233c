"""A folder from which ``ollama create`` makes a model: a Modelfile and the adapter."""

from __future__ import annotations

from pathlib import Path

from mlxsched.errors import UsageError
from mlxsched.export.adapter import TrainedAdapter
from mlxsched.export.folder import write_folder
from mlxsched.export.gguf_adapter import FILE, library, write_adapter
from mlxsched.model.local import OLLAMA, gguf_file

MODELFILE = "Modelfile"


def export_ollama(
    adapter: TrainedAdapter, target: Path, *, base: str | None, system: str | None, force: bool = False
) -> list[str]:
    """Write ``Modelfile`` and ``adapter.gguf`` into ``target``; ``base`` is what Modelfile's FROM names."""
    library()
    text = modelfile(base or base_of(adapter), system)

    def fill(directory: Path) -> None:
        write_adapter(adapter, directory / FILE)
        (directory / MODELFILE).write_text(text, encoding="utf-8")

    return write_folder(target, fill, force=force)


def base_of(adapter: TrainedAdapter) -> str:
    """What FROM can name without being told: Ollama's own model, or the GGUF file that the run was trained on."""
    name = adapter.config.model
    if name.startswith(OLLAMA):
        return name.removeprefix(OLLAMA)
    file = gguf_file(name)
    if file is not None:
        return str(file.resolve())
    raise UsageError(
        f"Ollama needs the base model too, and {name} is not a GGUF file. Name it with --from: an Ollama model "
        "(llama3.2:1b) or a GGUF file of the same model."
    )


def modelfile(base: str, system: str | None) -> str:
    """The text of a Modelfile; template and stop tokens come from the base.

    >>> print(modelfile("llama3.2:1b", "Answer briefly."), end="")
    FROM llama3.2:1b
    ADAPTER ./adapter.gguf
    SYSTEM \"\"\"Answer briefly.\"\"\"
    """
    if "\n" in base or '"""' in (system or ""):
        raise UsageError('a Modelfile cannot hold a line break in FROM, or """ in SYSTEM. Change the text.')
    lines = [f"FROM {base}", f"ADAPTER ./{FILE}", *([f'SYSTEM """{system}"""'] if system else [])]
    return "\n".join(lines) + "\n"
