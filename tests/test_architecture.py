"""Imports point one way, and starting up loads nothing heavy."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "mlxsched"

# Lower rows are imported by higher ones. Within a row nothing is imported, but for what EXTRA allows.
ROWS = [
    {"errors", "text"},
    {"platform", "bundled"},
    {"schedules"},
    {"config", "runs"},
    {"analysis"},
    {"planning"},
    {"data", "model", "integrations"},
    {"training"},
    {"bench", "render", "export", "tracking"},
    {"experiments"},
    {"cli"},
    {"__main__"},
]
EXTRA = {("model", "data"), ("export", "render")}
RANK = {name: rank for rank, row in enumerate(ROWS) for name in row}

HEAVY = ("mlx_lm", "transformers")
MAY_USE_HEAVY = {"bench", "data", "export", "integrations", "model", "training"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__")


def part_of(module: str) -> str:
    """Return the part of the package that a dotted module belongs to: ``mlxsched.runs.lock`` -> ``runs``."""
    return module.split(".")[1] if "." in module else ""


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of every import, also those inside functions."""
    root = next(
        one for one in path.parents if one.name == "mlxsched" and not (one.parent / "__init__.py").exists()
    )
    package = ["mlxsched", *path.relative_to(root).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *(node.module.split(".") if node.module else [])])
            yield from ((node.lineno, f"{name}.{alias.name}") for alias in node.names)


def part_of_file(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def may_import(importer: str, imported: str) -> bool:
    lower = RANK[imported] < RANK[importer]
    return importer == imported or lower or (importer, imported) in EXTRA


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    part = part_of_file(path)
    assert part in RANK, f"{part} has no place in the picture"
    wrong = [
        f"{path.name}:{line} imports {name}"
        for line, name in imports_of(path)
        if name.startswith("mlxsched.") and part_of(name) in RANK and not may_import(part, part_of(name))
    ]
    assert not wrong


def module_graph(package: Path) -> dict[str, set[str]]:
    """Return the modules that each module imports, anywhere in its text, also inside functions."""
    files = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts): path
        for path in package.rglob("*.py")
    }
    known = {name.removesuffix(".__init__"): path for name, path in files.items()}
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        targets = {home_of(name, known) for _, name in imports_of(path)}
        graph[module] = {target for target in targets if target and target != module}
    return graph


def home_of(name: str, known: Collection[str]) -> str | None:
    """Return the module that an imported name comes from: itself, or the nearest module above it."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name or None


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_modules_import_each_other_in_a_circle():
    graph = module_graph(PACKAGE)
    assert len(graph) > 100 and graph["mlxsched.schedules.serialization"] >= {"mlxsched.schedules.base"}
    assert circle_in(graph) == []


def test_the_search_finds_a_circle_through_a_function(tmp_path):
    package = tmp_path / "mlxsched"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text("from mlxsched.two import thing\n")
    (package / "two.py").write_text("def thing():\n    import mlxsched.one\n")
    assert set(circle_in(module_graph(package))) == {"mlxsched.one", "mlxsched.two"}
    (package / "two.py").write_text("def thing():\n    import json\n")
    assert circle_in(module_graph(package)) == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_some_parts_use_mlx_lm(path):
    if part_of_file(path) not in MAY_USE_HEAVY:
        assert not [name for _, name in imports_of(path) if name.split(".")[0] in HEAVY]


def test_the_check_sees_relative_imports_and_those_inside_functions():
    found = {name for _, name in imports_of(PACKAGE / "cli" / "main.py")}
    assert {"mlxsched.errors.MlxschedError", "mlxsched.text.did_you_mean"} <= found
    assert not may_import("runs", "cli")
    assert not may_import("data", "training")
    assert not may_import("config", "runs")
    assert may_import("training", "data")
    assert not may_import("model", "training")


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that ``code`` loads in a fresh process."""
    report = f"import sys, json, contextlib, io\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    return set(json.loads(subprocess.check_output([sys.executable, "-c", report], text=True)))


@pytest.mark.parametrize(
    "code",
    [
        "import mlxsched",
        "from mlxsched.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): assert main(['--help']) == 0",
    ],
    ids=["import", "help"],
)
def test_starting_up_loads_nothing_heavy(code):
    heavy = {"transformers", "mlx_lm", "matplotlib", "bokeh", "pydantic", "mlx.nn", "rich", "yaml", "plotext"}
    loaded = loaded_by(code)
    assert "mlxsched" in loaded
    assert not heavy & loaded


def test_a_schedule_needs_neither_mlx_nn_nor_pydantic():
    loaded = loaded_by("import mlxsched as ms\nms.warmup_linear(1e-4, 100, 10)(5)")
    assert not {"transformers", "mlx_lm", "matplotlib", "pydantic", "mlx.nn"} & loaded


# What may be larger: the settings of a run are one flat table, and `restarts` explains more than it computes.
LARGE_CLASSES = {"RunConfig", "restarts"}


def definitions() -> Iterator[tuple[Path, ast.AST]]:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            yield path, node


def test_classes_stay_below_160_lines():
    large = {
        node.name: node.end_lineno - node.lineno + 1
        for _, node in definitions()
        if isinstance(node, ast.ClassDef) and node.end_lineno - node.lineno >= 160
    }
    assert large.keys() == LARGE_CLASSES, large


def test_functions_take_at_most_seven_parameters():
    """Except for those in `schedules.compat`, which copy other libraries' signatures."""
    long = []
    for path, node in definitions():
        if isinstance(node, ast.FunctionDef) and "compat" not in path.parts:
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            if len([name for name in names if name not in {"self", "cls"}]) > 7:
                long.append(f"{path.name}:{node.lineno} {node.name}")
    assert not long
