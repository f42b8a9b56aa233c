"""Refuse what a chat template does with a content that a `Hole` can't notice by itself.

Some operations of Python call no method of a string. The syntax of the template is checked for them, and partly rewritten. The
arguments of its filters, tests and functions are checked as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from mlxsched.data.holes import Hole, LookedInside, concatenate

_SYNTAX = frozenset({
    "Template", "Output", "TemplateData", "For", "If", "Assign", "Name", "NSRef", "Const", "Getattr", "Getitem", "Slice",
    "Filter", "Test", "Call", "Keyword", "Compare", "Operand", "And", "Or", "Not", "Add", "Sub", "Neg", "Mod", "Concat",
    "CondExpr", "List", "Tuple", "Dict", "Pair", "Continue", "Break", "ExprStmt", "Macro", "AssignBlock",
})  # fmt: skip
_TESTS_OF_TYPES = frozenset({
    "defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "boolean", "true", "false",
})  # fmt: skip
_SAFE = (int, float, bool, str, type(None))
# Arguments that Jinja uses only for functions that take a context.
_FOR_CONTEXTS = ("_loop_vars", "_block_vars")
# Our own filters.
_CONCATENATE, _IS_IN, _IS_FILLED = "mlxsched_concatenate", "mlxsched_is_in", "mlxsched_is_filled"


def refuse_looks(environment: Any, tree: Any) -> None:
    """Make the template ``tree`` of Jinja's ``environment`` raise `LookedInside` even where a hole can't."""
    from jinja2.runtime import Macro
    from jinja2.utils import Namespace

    _check_syntax(tree)
    _replace_operators(tree)
    environment.concat = concatenate
    environment.filters = {name: _filter(name, call) for name, call in environment.filters.items()}
    environment.filters[_CONCATENATE] = lambda parts: concatenate(map(str, parts))
    environment.filters[_IS_IN] = _is_in
    environment.filters[_IS_FILLED] = _is_filled
    environment.tests = {name: _test(name, call) for name, call in environment.tests.items()}
    call, getitem = environment.call, environment.getitem

    def checked(context: Any, function: Any, *args: Any, **more: Any) -> Any:
        called = getattr(function, "__call__", None)  # noqa: B004 - Jinja looks there, too
        asks = hasattr(function, "jinja_pass_arg") or hasattr(called, "jinja_pass_arg")
        given = [*args, *(value for key, value in more.items() if asks or key not in _FOR_CONTEXTS)]
        keeps = isinstance(function, Macro) or (
            isinstance(function, type) and issubclass(function, Namespace)
        )
        raises = getattr(function, "__name__", "") == "raise_exception"
        if not keeps and not raises and not all(map(_is_safe, given)):
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
    if any(len(compare.ops) > 1 for compare in tree.find_all(nodes.Compare)):
        raise LookedInside
    for mod in tree.find_all(nodes.Mod):  # "%" also formats strings
        if not (isinstance(mod.right, nodes.Const) and isinstance(mod.right.value, int)):
            raise LookedInside


def _is_in(pair: Sequence[Any]) -> bool:
    """Whether the first of ``pair`` is in the second."""
    item, container = pair
    if isinstance(item, Hole) and isinstance(container, str):  # calls no method of the hole
        raise LookedInside
    return item in container


def _is_filled(value: Any) -> bool:
    """Whether ``value`` has a length above 0."""
    return bool(value) if isinstance(value, Hole) else len(value) > 0


def _replace_operators(tree: Any) -> None:
    """Replace "~", "in" and "| length > 0" by our own filters.

    The first two call no method of a hole, and any other use of the length of a hole is refused.
    """
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    def filtered(value: nodes.Expr, name: str) -> nodes.Filter:
        return nodes.Filter(value, name, [], [], None, None)

    class Replacing(NodeTransformer):
        def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
            self.generic_visit(node)
            return filtered(nodes.List(node.nodes), _CONCATENATE)

        def visit_Compare(self, node: nodes.Compare) -> nodes.Expr:
            self.generic_visit(node)
            operator, left, right = node.ops[0].op, node.expr, node.ops[0].expr
            if isinstance(left, nodes.Filter) and left.node is not None:
                is_length = left == filtered(left.node, "length")
                if is_length and operator == "gt" and right == nodes.Const(0):
                    return filtered(left.node, _IS_FILLED)
            if operator not in ("in", "notin"):
                return node
            found = filtered(nodes.List([left, right]), _IS_IN)
            return found if operator == "in" else nodes.Not(found)

    Replacing().visit(tree).set_environment(tree.environment)


def _is_safe(value: Any) -> bool:
    from jinja2 import Environment, Undefined
    from jinja2.nodes import EvalContext
    from jinja2.runtime import Context

    return type(value) in _SAFE or isinstance(value, (Undefined, Environment, EvalContext, Context))


def _filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def checked(*args: Any, **more: Any) -> Any:
        keeps = name == "default" or (name in ("trim", "string") and len(args) == 1 and not more)
        counts = name in ("length", "count") and not isinstance(args[0], Hole)
        own = name.startswith("mlxsched_")
        if own or keeps or counts or all(map(_is_safe, (*args, *more.values()))):
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
