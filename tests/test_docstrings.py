"""Everything public says what it is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import mlxsched


def public_things() -> Iterator[tuple[str, object]]:
    """Modules, functions, classes, methods and properties without a leading underscore, by their dotted names."""
    for found in pkgutil.walk_packages(mlxsched.__path__, "mlxsched."):
        try:
            module = importlib.import_module(found.name)
        except ModuleNotFoundError:
            if found.name.startswith("mlxsched.tracking.backends."):
                continue  # its tracker is an optional package
            raise
        yield found.name, module
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != found.name:
                continue
            if inspect.isfunction(thing):
                yield f"{found.name}.{name}", thing
            elif inspect.isclass(thing):
                yield f"{found.name}.{name}", thing
                yield from public_members(f"{found.name}.{name}", thing)


def public_members(prefix: str, thing: type) -> Iterator[tuple[str, object]]:
    for name, member in vars(thing).items():
        declared = isinstance(member, property) and getattr(thing, "_is_protocol", False)  # a view's setting
        if declared or name.startswith("_"):
            continue
        if inspect.isfunction(member) or isinstance(member, property):
            yield f"{prefix}.{name}", getattr(thing, name)


def test_everything_public_says_what_it_is():
    """What overrides something that does may leave it out."""
    assert [name for name, thing in public_things() if not inspect.getdoc(thing)] == []
