"""Write docs/gallery.md and its pictures from the schedule registry; ``--check`` says whether they are up to date.

    python scripts/make_gallery.py            # write
    python scripts/make_gallery.py --check    # exit 1 when a file would change

No drawing library is needed, and the same registry gives the same bytes on every machine.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from mlxsched.render.curves import schedule_chart
from mlxsched.render.describe import example, heading, other_names, stands_for
from mlxsched.render.thumbnail import thumbnail
from mlxsched.schedules.registry import Entry, alias_names, entry, names

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = "gallery.md"
PICTURES = "gallery"
POINTS = 1000
INTRODUCTION = """\
<!-- Written by scripts/make_gallery.py from the docstrings of mlxsched/schedules; change those, not this. -->

# Gallery of schedules

Each picture is drawn from the example beside it; `t` is the index of the update, 0 for the first. In a terminal,
`mlxsched schedules show NAME` says the same, and `mlxsched plot NAME` draws a schedule with your own numbers.
"""


def build() -> dict[str, str]:
    """Every file of the gallery by its path inside docs/, with its contents."""
    entries = [entry(name) for name in [*names(), *alias_names()]]
    pictures = {f"{PICTURES}/{known.name}.svg": picture(known) for known in entries}
    return {PAGE: page(entries), **pictures}


def picture(known: Entry) -> str:
    """The example of a schedule as a small SVG."""
    shown = example(known)
    chart = schedule_chart([(known.name, shown.schedule)], steps=shown.steps, points=POINTS)
    return thumbnail(chart)


def page(entries: Sequence[Entry]) -> str:
    """The page: a table of contents, then the schedules in their groups."""
    groups = [list(members) for _, members in itertools.groupby(entries, key=lambda known: known.group)]
    contents = [f"- {heading(group[0])}: {', '.join(_link(known) for known in group)}" for group in groups]
    body = [line for group in groups for line in _section(group)]
    return "\n".join([INTRODUCTION, *contents, "", *body]).rstrip() + "\n"


def _link(known: Entry) -> str:
    return f"[{known.name}](#{known.name})"


def _section(group: Sequence[Entry]) -> Iterable[str]:
    yield f"## {heading(group[0])}"
    for known in group:
        yield f"\n### {known.name}\n\n{known.summary}\n\n![{known.name}]({PICTURES}/{known.name}.svg)\n"
        yield f"```python\n{known.spec}\n```\n"
        yield from _facts(known)
    yield ""


def _facts(known: Entry) -> Iterable[str]:
    """Formula, when to use it, source, other names: what is known of them."""
    aliases = ", ".join(f"`{name}`" for name in other_names(known.name))
    formula = f"`{known.formula}`" if known.formula else ""
    in_a_run = stands_for(known.name)
    facts = {
        "Formula": formula,
        "When to use it": known.when,
        "Source": known.source,
        "Also called": aliases,
        "In a run": f"`--schedule {known.name}` means `{in_a_run}`." if in_a_run != known.name else "",
    }
    for label, text in facts.items():
        if text:
            yield f"- **{label}:** {text}"


def stale(files: dict[str, str]) -> list[str]:
    """Paths inside docs/ that are missing, differ from ``files``, or are pictures of schedules that are gone."""
    kept = {f"{PICTURES}/{path.name}" for path in (DOCS / PICTURES).glob("*.svg")}
    changed = [path for path, text in files.items() if _read(DOCS / path) != text]
    return sorted([*changed, *(kept - files.keys())])


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def write(files: dict[str, str]) -> None:
    """Bring docs/ up to date."""
    for path in stale(files):
        if path not in files:
            (DOCS / path).unlink()
            continue
        (DOCS / path).parent.mkdir(parents=True, exist_ok=True)
        (DOCS / path).write_text(files[path], encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the gallery, or check it; the exit code is 1 for a gallery that is out of date."""
    parser = argparse.ArgumentParser(description="Write docs/gallery.md and its pictures from the registry.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 when something would change"
    )
    checking = parser.parse_args(arguments).check
    files = build()
    late = stale(files)
    if not checking:
        write(files)
        print(f"{len(files) - 1} schedules, {len(late)} files changed")
        return 0
    for path in late:
        print(f"docs/{path} is out of date: run python scripts/make_gallery.py", file=sys.stderr)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
