"""Hooks of the site's build: the generated reference, and pages for the files outside docs/ that pages refer to."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads this file by its path
import make_reference

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = {
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "mlxsched/schedules/README.md": "schedules.md",
}
EXAMPLES = sorted(ROOT.glob("examples/*.py"))
SITE = DOCUMENTS | {
    f"examples/{path.name}": f"examples.md#{path.stem}py" for path in EXAMPLES
}  # repository -> site
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made during the build."""
    copies = {site: (ROOT / path).read_text(encoding="utf-8") for path, site in DOCUMENTS.items()}
    for path, text in (copies | make_reference.build() | {"examples.md": _examples()}).items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links between files of the repository to links between pages of the site."""
    sources = {site: path for path, site in DOCUMENTS.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    here = posixpath.dirname(page.file.src_uri)

    def rewrite(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if target.startswith("docs/"):
            return posixpath.relpath(target.removeprefix("docs/"), here or ".")
        return posixpath.relpath(SITE[target], here or ".") if target in SITE else match[1]

    return LINK.sub(rewrite, markdown)


def _examples() -> str:
    parts = ["# Examples", "Each script runs in the tests, on the bundled model. They are in `examples/`."]
    for path in EXAMPLES:
        parts += [f"## {path.name}", f"```python\n{path.read_text(encoding='utf-8')}```"]
    return "\n\n".join(parts) + "\n"
