"""Write docs/gallery.md and its pictures from the schedule registry; ``--check`` says whether they are up to date.

    python scripts/make_gallery.py            # write
    python scripts/make_gallery.py --check    # exit 1 if a file would change

No drawing library is needed, and the same registry gives the same bytes on every machine.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from mlxsched.render.curves import schedule_chart
from mlxsched.render.describe import ExampleCurve, example, example_spec, heading, other_names, stands_for
from mlxsched.schedules.registry import ScheduleInfo, alias_names, entry, names

sys.path.insert(0, str(Path(__file__).parent))  # needed when another program imports this file
from thumbnail import thumbnail

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = "gallery.md"
PICTURES = "gallery"
POINTS = 1000
INTRODUCTION = """\
<!-- Written by scripts/make_gallery.py from the docstrings of mlxsched/schedules; change those, not this. -->

# Gallery of schedules

Each picture is drawn from the example next to it; `t` is the index of the update, 0 for the first. In a terminal,
`mlxsched schedules show NAME` shows the same, and `mlxsched plot NAME` draws a schedule with your own numbers.
Controllers are drawn with a validation loss that falls for a third of the run and then stays where it is.
"""

OTHERS = """\
## Other libraries' names

These give the library's own values, even where they surprise; the tests compare them with recorded values
(`tests/golden`). In a spec they are written with the library's name.
"""


def build() -> dict[str, str]:
    """Every file of the gallery by its path inside docs/, with its contents."""
    ours, others = [entry(name) for name in names()], [entry(name) for name in alias_names()]
    shown = {known.name: example(known) for known in [*ours, *others]}
    pictures = {f"{PICTURES}/{name}.svg": picture(name, one) for name, one in shown.items() if one}
    return {PAGE: page(ours, others), **pictures}


def picture(name: str, shown: ExampleCurve) -> str:
    """The example of a schedule as a small SVG."""
    return thumbnail(schedule_chart([(name, shown.schedule)], steps=shown.steps, points=POINTS))


def page(ours: Sequence[ScheduleInfo], others: Sequence[ScheduleInfo]) -> str:
    """A table of contents, our schedules in their groups, and a table of names for each other library."""
    groups = _groups(ours)
    contents = [f"- {heading(group[0])}: {', '.join(_link(known) for known in group)}" for group in groups]
    sections = [line for group in groups for line in _section(group)]
    tables = [line for group in _groups(others) for line in _table(group)]
    return "\n".join([INTRODUCTION, *contents, "", *sections, OTHERS, *tables]).rstrip() + "\n"


def _groups(entries: Sequence[ScheduleInfo]) -> list[list[ScheduleInfo]]:
    return [list(members) for _, members in itertools.groupby(entries, key=lambda known: known.group)]


def _link(known: ScheduleInfo) -> str:
    return f"[{known.name}](#{known.name})"


def _image(known: ScheduleInfo) -> str:
    return f"![{known.name}]({PICTURES}/{known.name}.svg)" if example(known) else ""


def _section(group: Sequence[ScheduleInfo]) -> Iterable[str]:
    yield f"## {heading(group[0])}"
    for known in group:
        yield f"\n### {known.name}\n\n{known.summary}\n\n{_image(known)}\n\n```python\n{known.spec}\n```\n"
        yield from _facts(known)
    yield ""


def _facts(known: ScheduleInfo) -> Iterable[str]:
    """Formula, when to use it, source and other names; unknown ones are left out."""
    meant, formula = stands_for(known.name), known.formula.replace("`", "")
    facts = {
        "Formula": f"`{formula}`" if formula else "",
        "When to use it": known.when,
        "Source": known.source,
        "Also called": ", ".join(f"`{name}`" for name in other_names(known.name)),
        "In a run": f"`--schedule {known.name}` means `{meant}`." if meant != known.name else "",
    }
    return (f"- **{label}:** {text}" for label, text in facts.items() if text)


def _table(group: Sequence[ScheduleInfo]) -> Iterable[str]:
    """One library's names, each with its rate, an example and a picture."""
    yield f"### {heading(group[0])}\n"
    yield "| name | rate at update t | picture |\n| --- | --- | --- |"
    for known in group:
        summary = known.summary.replace("|", "\\|")
        yield f"| `{known.name}` | {summary} `{example_spec(known)}` | {_image(known)} |"
    yield ""


def stale(files: dict[str, str]) -> list[str]:
    """Paths inside docs/ that are missing, differ from ``files``, or show schedules that no longer exist."""
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
        "--check", action="store_true", help="write nothing; exit 1 if something would change"
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
