"""Strings that stand for any content, to find out whether a chat template looks into what it writes.

A `Hole` can be written, be added to other strings, and be trimmed. Anything else raises `LookedInside`. Some operations of
Python call no method of a string, so `refuse_looks` also checks the syntax of a template and the arguments of its functions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

# Of messages: their values are never holes. "in" calls no method of its left operand, so a hole there would go unnoticed.
_PLAIN_KEYS = ("role",)
_SYNTAX = frozenset({
    "Template", "Output", "TemplateData", "For", "If", "Assign", "Name", "NSRef", "Const", "Getattr", "Getitem", "Slice",
    "Filter", "Test", "Call", "Keyword", "Compare", "Operand", "And", "Or", "Not", "Add", "Sub", "Neg", "Mod", "Concat",
    "CondExpr", "List", "Tuple", "Dict", "Pair", "Continue", "Break", "ExprStmt",
})  # fmt: skip
_TESTS_OF_TYPES = frozenset({
    "defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "boolean", "true", "false",
})  # fmt: skip
_SAFE = (int, float, bool, str, type(None))


class LookedInside(Exception):
    """The template does something with a content whose result depends on the content."""


class Hole(str):
    """A string that stands for any content that is not blank; ``trimmed`` stands for the same content without white space
    around it."""

    trimmed: Hole | None = None

    def __add__(self, other: str) -> Hole:
        return Hole(str.__add__(self, other))

    def __radd__(self, other: str) -> Hole:
        return Hole(str.__add__(other, self))

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        if other is None:
            return False
        raise LookedInside

    def __ne__(self, other: object) -> bool:
        return not self == other

    def strip(self, chars: str | None = None, /) -> Hole:
        """The hole for the trimmed content."""
        if chars is not None or self.trimmed is None:
            raise LookedInside
        return self.trimmed


def _refused(*_: object, **__: object) -> Any:
    """Refused: it depends on the content."""
    raise LookedInside


_NEEDED = {
    "__class__",
    "__new__",
    "__init__",
    "__getattribute__",
    "__setattr__",
    "__str__",
    "__doc__",
    "__dict__",
}
for _name in {*dir(str), "__rmod__"} - {*vars(Hole)} - _NEEDED | {"__hash__"}:
    if callable(getattr(str, _name, _refused)) and not _name.startswith("__init_sub"):
        setattr(Hole, _name, _refused)


class HoledMessage(dict[str, str]):
    """A message whose content is a `Hole`. Iterating over it is refused, too: a chat may have its keys in another order."""

    __iter__ = keys = values = items = _refused


def refuse_looks(environment: Any, tree: Any) -> None:
    """Make the template ``tree`` of Jinja's ``environment`` raise `LookedInside` even where a hole
    can't notice that the template looks into it."""
    _check_syntax(tree)
    environment.filters = {name: _filter(name, call) for name, call in environment.filters.items()}
    environment.tests = {name: _test(name, call) for name, call in environment.tests.items()}
    call, getitem = environment.call, environment.getitem

    def checked(context: Any, function: Any, *args: Any, **more: Any) -> Any:
        name = getattr(function, "__name__", "")
        if name not in ("Namespace", "raise_exception") and not all(map(_is_safe, (*args, *more.values()))):
            raise LookedInside
        return call(context, function, *args, **more)

    def item(container: Any, key: Any) -> Any:
        if isinstance(key, Hole):  # may be the name of an attribute
            raise LookedInside
        return getitem(container, key)

    environment.call, environment.getitem = checked, item


def _check_syntax(tree: Any) -> None:
    from jinja2 import nodes

    if any(type(node).__name__ not in _SYNTAX for node in tree.find_all(nodes.Node)):
        raise LookedInside
    for compare in tree.find_all(nodes.Compare):
        is_in = any(operand.op in ("in", "notin") for operand in compare.ops)
        among = (nodes.List, nodes.Tuple)  # their members are compared, which a hole notices
        if is_in and not (_is_no_hole(compare.expr) or isinstance(compare.ops[0].expr, among)):
            raise LookedInside
    for mod in tree.find_all(nodes.Mod):  # formats strings, too
        if not (isinstance(mod.right, nodes.Const) and isinstance(mod.right.value, int)):
            raise LookedInside
    # "~" makes a plain string, which notices nothing: it may only be written.
    written = [part for output in tree.find_all(nodes.Output) for part in output.nodes]
    for part in written:  # grows in the loop
        if isinstance(part, (nodes.Concat, nodes.Add, nodes.CondExpr)):
            written += part.iter_child_nodes()
    written_ids = {*map(id, written)}
    if any(id(concat) not in written_ids for concat in tree.find_all(nodes.Concat)):
        raise LookedInside


def _is_no_hole(node: Any) -> bool:
    from jinja2 import nodes

    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value in _PLAIN_KEYS
    return isinstance(node, nodes.Const) or (isinstance(node, nodes.Getattr) and node.attr in _PLAIN_KEYS)


def _is_safe(value: Any) -> bool:
    from jinja2 import Environment, Undefined
    from jinja2.nodes import EvalContext
    from jinja2.runtime import Context

    return type(value) in _SAFE or isinstance(value, (Undefined, Environment, EvalContext, Context))


def _filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def checked(*args: Any, **more: Any) -> Any:
        trims = name == "trim" and len(args) == 1 and not more
        own = name.startswith("mlxsched_")
        if own or trims or all(map(_is_safe, (*args, *more.values()))):
            return function(*args, **more)
        raise LookedInside

    return checked


def _test(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def checked(*args: Any, **more: Any) -> Any:
        if name in _TESTS_OF_TYPES:
            return function(*(str(arg) if isinstance(arg, Hole) else arg for arg in args), **more)
        if not all(map(_is_safe, (*args, *more.values()))):
            raise LookedInside
        return function(*args, **more)

    return checked
