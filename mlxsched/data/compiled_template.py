"""A chat template that records, while rendering a chat, where the rendering of each prefix of the chat ends.

To find the assistant's turns, a chat of n messages would have to be rendered up to 2n times: each prefix of it, with
and without the generation prompt. Most templates write one message after another, so all of these renderings are
prefixes of the whole text, and one rendering suffices. But a template may look ahead, at the last message or at the
number of messages. Therefore the messages are passed as `_Messages`, which records what the template reads. The
template runs lazily: if it has read nothing beyond the first k messages when it finishes the k-th, it would have
written the same for these k messages alone. The text after the loop must be the same for all chats; the template's
syntax tree shows whether it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlxsched.data.messages import Message, Messages

_SCALARS = frozenset({str, int, float, bool, type(None)})
# transformers copies each of these to the others before it renders.
_REASONING = frozenset({"reasoning_content", "reasoning", "thinking"})
_VARYING = {"messages", "tools", "documents"}
_PROMPT = "add_generation_prompt"
_LOOP, _END = "mlxsched_loop", "mlxsched_end"  # filters of ours
_ALL = 2**62  # everything was read, including the number of messages
# What may follow the loop: nothing with a state.
_CONSTANT = (
    "Output", "TemplateData", "If", "Name", "Const", "Test", "Not", "And", "Or", "Compare", "Operand", "CondExpr",
    "Add", "Concat", "Getattr", "Getitem",
)  # fmt: skip


@dataclass(frozen=True)
class Rendering:
    """A chat as text.

    Args:
        text: all of it.
        cuts: where the first k messages end in ``text``, by k, for those k whose own rendering is the text up to there
            and a constant tail.
        tails: these tails: without and with the prompt for a generation.
    """

    text: str
    cuts: Mapping[int, int] = field(default_factory=dict)
    tails: tuple[str, str] = ("", "")

    def beginning(self, count: int, *, prompt: bool = False) -> str | None:
        """The rendering of the first ``count`` messages; None if it is unknown."""
        cut = self.cuts.get(count)
        return None if cut is None else self.text[:cut] + self.tails[prompt]

    def end_of(self, count: int, *, prompt: bool = False) -> int | None:
        """Where that rendering ends in ``text``; None if it is unknown or not how ``text`` begins."""
        cut, tail = self.cuts.get(count), self.tails[prompt]
        return cut + len(tail) if cut is not None and self.text.startswith(tail, cut) else None


class CompiledTemplate:
    """Renders chats with the Jinja template ``source``, as transformers does, but without its copies of the data.

    Args:
        source: the template.
        variables: what the template receives besides messages, tools and the flag for a generation prompt.
        adapt: changes Jinja's environment and syntax tree before the template is compiled.
    """

    def __init__(
        self, source: str, variables: Mapping[str, Any], adapt: Callable[[Any, Any], None] | None = None
    ) -> None:
        from transformers.utils.chat_template_utils import _compile_jinja_template

        self._mark = secrets.token_hex(16)  # nothing in a chat equals it
        self._log = _Log()
        environment: Any = _compile_jinja_template(source).environment.overlay()
        # Filters, because a call in a sandbox takes as long as writing a short message.
        ours = {_LOOP: lambda value: self._log.loop(value), _END: self._end}
        environment.filters = {**environment.filters, **ours}
        tree = environment.parse(source)
        _mark_loop(tree)
        if adapt is not None:
            adapt(environment, tree)
        code = environment.compile(tree)
        constants = {**environment.globals, "documents": None, **variables}
        self._template: Any = environment.template_class.from_code(environment, code, constants)
        self._prompt: str | None = None  # the tail with a prompt

    def render(self, messages: Messages, tools: Any, *, prompt: bool = False) -> Rendering | None:
        """The chat as text; None if transformers must render it. Raises whatever the template raises."""
        plain = [_without_nulls(message) for message in messages if _is_plain_message(message)]
        if not plain or len(plain) < len(messages) or not _is_plain(tools):
            return None
        return self.render_plain(plain, tools, prompt=prompt)

    def render_plain(self, plain: Messages, tools: Any = None, *, prompt: bool = False) -> Rendering:
        """`render` for messages that need no conversion."""
        text, cuts = self._run(plain, tools, prompt=prompt)
        if prompt or len(plain) not in cuts:
            return Rendering(text)
        if self._prompt is None:
            prompted, before = self._run(plain, tools, prompt=True)
            self._prompt = prompted[before[len(plain)] :]
        return Rendering(text, cuts, (text[cuts[len(plain)] :], self._prompt))

    def _run(self, messages: Messages, tools: Any, *, prompt: bool) -> tuple[str, dict[int, int]]:
        log = self._log = _Log(messages)
        variables = {"messages": _Messages(messages, log), "tools": tools, _PROMPT: prompt}
        pieces: list[str] = []
        length, cuts = 0, {}
        for piece in self._template.root_render_func(self._template.new_context(variables)):
            if piece != self._mark:
                pieces.append(piece)
                length += len(piece)
            elif log.done == log.read:
                cuts[log.read] = length
        return "".join(pieces), cuts

    def _end(self, message: Any) -> str:
        self._log.end(message)
        return self._mark


def _mark_loop(tree: Any) -> None:
    """Add a mark to the end of the last loop's body, if what follows the loop is constant."""
    from jinja2 import nodes

    loops = [i for i, node in enumerate(tree.body) if isinstance(node, nodes.For) and not node.recursive]
    if not loops or not isinstance(tree.body[loops[-1]].target, nodes.Name):
        return
    loop, tail = tree.body[loops[-1]], tree.body[loops[-1] + 1 :]
    names = [name for node in tail for name in node.find_all(nodes.Name)]
    assigned = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    assigned |= {macro.name for macro in tree.find_all(nodes.Macro)}
    prompts = [name for name in tree.find_all(nodes.Name) if name.name == _PROMPT]
    if len(prompts) > sum(name.name == _PROMPT for name in names):
        return  # earlier messages are written differently when an answer is asked for
    if any(name.name in _VARYING | assigned for name in names) or not all(map(_is_constant, tail)):
        return
    message = nodes.Name(loop.target.name, "load")
    loop.body.append(nodes.Output([nodes.Filter(message, _END, [], [], None, None)]))
    loop.iter = nodes.Filter(loop.iter, _LOOP, [], [], None, None)
    tree.set_environment(tree.environment)


def _is_constant(node: Any) -> bool:
    return type(node).__name__ in _CONSTANT and all(map(_is_constant, node.iter_child_nodes()))


def _is_plain_message(message: Message) -> bool:
    return type(message) is dict and _REASONING.isdisjoint(message) and _is_plain(message)


def _without_nulls(message: Message) -> Message:
    # To a template, a null is a key that is not there, as in transformers.
    return {key: value for key, value in message.items() if value is not None}


def _is_plain(value: Any) -> bool:
    """Whether ``value`` is what a JSON parser makes: anything else transformers converts first."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is list:
        return all(map(_is_plain, value))
    if kind is not dict:
        return False
    for key, item in value.items():  # most values are strings: no generator, no call
        if type(key) is not str or (type(item) is not str and not _is_plain(item)):
            return False
    return True


class _Log:
    """Which messages a template has read, and the position of its loop."""

    def __init__(self, messages: Sequence[Message] = ()) -> None:
        self.read = 0  # the first so many messages
        self.done = 0  # the number of the message that the loop has just written, from 1
        self._numbers = {id(message): number for number, message in enumerate(messages, 1)}
        self._over_messages = False

    def loop(self, value: Any) -> Any:
        """Receives what the loop goes over."""
        self._over_messages = type(value) is _Messages
        return value

    def end(self, message: Any) -> None:
        """Receives the message of an iteration at its end."""
        self.done = self._numbers.get(id(message), 0) if self._over_messages else 0


class _Messages:
    """Messages from number ``start`` on, for a template: a list that records what is read.

    It supports only operations that are recorded. A template that uses others (printing, comparing or adding lists)
    raises, and transformers renders the chat.
    """

    def __init__(self, messages: Messages, log: _Log, start: int = 0) -> None:
        self._messages, self._log, self._start = messages, log, start

    def __bool__(self) -> bool:
        return self._start == 0 or len(self) > 0  # no chat is empty

    def __len__(self) -> int:
        self._log.read = _ALL
        return max(len(self._messages) - self._start, 0)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice) and index.stop is None and index.step is None and (index.start or 0) >= 0:
            return _Messages(self._messages, self._log, self._start + (index.start or 0))
        if type(index) is int and index >= 0:
            self._log.read = max(self._log.read, self._start + index + 1)
        else:
            self._log.read = _ALL
        return self._messages[self._start :][index]

    def __iter__(self) -> Iterator[Message]:
        for number in range(self._start, len(self._messages)):
            self._log.read = max(self._log.read, number + 1)
            yield self._messages[number]
        self._log.read = _ALL

    def __str__(self) -> str:
        raise TypeError("not recorded")

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        raise TypeError("not recorded")

    __hash__ = None  # type: ignore[assignment]
