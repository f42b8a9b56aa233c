"""Strings that stand for the contents of a chat, to find out what a chat template does with what it writes.

A `Hole` can be written and be added to other strings. The methods in `_MAKING` give another hole, and those in `_ASKING` answer
for the content that the hole stands for; a `Trace` records both. Anything else raises `LookedInside`. Some operations of Python
call no method of a string, so `refuse_looks` also checks the syntax of a template and the arguments of its functions.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple

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
_FOR_CONTEXTS = ("_loop_vars", "_block_vars")  # of Jinja, to a function that asks for its context
_OTHER_TYPES = (bool, int, float, type(None))  # what is of them equals no string
_MAKING = ("strip", "lstrip", "rstrip")
_ASKING = ("__contains__", "startswith", "endswith")
BLANK = "\x1c"  # white space that no template writes


class LookedInside(Exception):
    """The template does something with a content that a `Trace` can't record."""


class Step(NamedTuple):
    """A method of a string, its arguments, and which item of its result is meant; None for all of it."""

    method: str
    arguments: tuple[str | int | None, ...]
    item: int | None = None


class Made(NamedTuple):
    """What is made of the content of a message, by its index in the chat."""

    message: int
    steps: tuple[Step, ...] = ()


class Question(NamedTuple):
    """What a template asks about a content: a method that changes nothing, and its arguments."""

    about: Made
    method: str
    arguments: tuple[str, ...]


class Trace:
    """What a template does with the contents of a chat.

    Args:
        contents: of all messages; None for any contents that are not blank, about which nothing can be asked.
        count: the number of messages.

    Attributes:
        made: what each hole stands for, by its text.
        answers: of each question about ``contents``, in the order in which the template asked them.
    """

    def __init__(self, contents: Sequence[str] | None, count: int) -> None:
        self._stem = secrets.token_hex(16)
        self.made: dict[str, Made] = {}
        self.answers: dict[Question, object] = {}
        self.holes = [self.hole(Made(i), None if contents is None else contents[i]) for i in range(count)]

    @property
    def pattern(self) -> str:
        """A regular expression for a hole, as a group."""
        return rf"({BLANK}{self._stem}\d+x{BLANK})"

    def is_constant(self, text: str) -> bool:
        """Whether ``text`` has no part of a hole."""
        return BLANK not in text and self._stem not in text

    def hole(self, made: Made, content: str | None) -> Hole:
        """A new hole for what is ``made`` of a content, and is now ``content``."""
        text = f"{BLANK}{self._stem}{len(self.made)}x{BLANK}"
        hole = Hole(text)
        hole._trace, hole._made, hole._content = self, made, content
        hole._is_filled = made.steps in ((), (STRIP,))
        self.made[text] = made
        return hole


class Hole(str):
    """A string that stands for a content, or for what is made of it."""

    _trace: Trace | None = None  # None: other strings were added
    _made = Made(0)
    _content: str | None = None
    _is_filled = False  # whether it stands for no empty string: a content is not blank

    def __add__(self, other: str) -> Hole:
        return self._joined(str.__add__(self, other), other)

    def __radd__(self, other: str) -> Hole:
        return self._joined(str.__add__(other, self), other)

    def _joined(self, text: str, other: str) -> Hole:
        hole = Hole(text)
        hole._is_filled = self._is_filled or (other._is_filled if isinstance(other, Hole) else other != "")
        return hole

    def __bool__(self) -> bool:
        return self._is_filled or bool(self._ask("__ne__", ""))

    def __eq__(self, other: object) -> bool:
        return type(other) not in _OTHER_TYPES and bool(self._ask("__eq__", other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def split(self, separator: str, most: int = -1, /) -> list[Hole]:  # type: ignore[override]
        """A hole for each part: how many there are is a question."""
        self._ask("count", separator)
        if type(most) is not int or self._content is None:
            raise LookedInside
        parts = self._content.split(separator, most)
        return [self._make(Step("split", (separator, most), i), part) for i, part in enumerate(parts)]

    def _make(self, step: Step, content: str | None) -> Hole:
        if self._trace is None or not all(type(each) in (str, int, type(None)) for each in step.arguments):
            raise LookedInside
        if self._made.steps[-1:] == (step,) and step.item is None:  # trimming twice
            return self
        return self._trace.hole(Made(self._made.message, (*self._made.steps, step)), content)

    def _ask(self, method: str, *arguments: Any) -> object:
        if self._trace is None or self._content is None or any(type(each) is not str for each in arguments):
            raise LookedInside
        question = Question(self._made, method, arguments)
        return self._trace.answers.setdefault(question, getattr(self._content, method)(*arguments))


STRIP = Step("strip", (None,))


def _making(name: str) -> Callable[..., Hole]:
    def make(self: Hole, characters: str | None = None, /) -> Hole:
        content = None if self._content is None else getattr(self._content, name)(characters)
        return self._make(Step(name, (characters,)), content)

    return make


def _asking(name: str) -> Callable[..., object]:
    def ask(self: Hole, other: str, /) -> object:
        return self._ask(name, other)

    return ask


for _name in _MAKING:
    setattr(Hole, _name, _making(_name))
for _name in _ASKING:
    setattr(Hole, _name, _asking(_name))


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

    __iter__ = keys = values = items = copy = _refused


def refuse_looks(environment: Any, tree: Any) -> None:
    """Make the template ``tree`` of Jinja's ``environment`` raise `LookedInside` even where a hole
    can't notice that the template looks into it."""
    _check_syntax(tree)
    environment.filters = {name: _filter(name, call) for name, call in environment.filters.items()}
    environment.tests = {name: _test(name, call) for name, call in environment.tests.items()}
    call, getitem = environment.call, environment.getitem

    def checked(context: Any, function: Any, *args: Any, **more: Any) -> Any:
        given = [*args, *more.values()]
        if isinstance(getattr(function, "__self__", None), (str, HoledMessage)):  # does not get these
            given = [*args, *(value for key, value in more.items() if key not in _FOR_CONTEXTS)]
        name = getattr(function, "__name__", "")
        if name not in ("Namespace", "raise_exception") and not all(map(_is_safe, given)):
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
        if isinstance(part, (nodes.Concat, nodes.Add)):
            written += part.iter_child_nodes()
        elif isinstance(part, nodes.CondExpr):
            written += filter(None, (part.expr1, part.expr2))
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
        counts = name in ("length", "count") and not isinstance(args[0], Hole)
        own = name.startswith("mlxsched_")
        if own or trims or counts or all(map(_is_safe, (*args, *more.values()))):
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
