"""From a record to one text, and the parts of it that are to be predicted.

Chats go through the tokenizer's chat template. So do a prompt and its completion; without a template they are joined
as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mlxsched.data.chat import ChatTemplate, Span
from mlxsched.data.formats import Conversation, read_conversation, read_text, scored_turns
from mlxsched.data.layouts import KNOWN_ROLES, Layouts
from mlxsched.data.messages import ROLES, Messages, encodable
from mlxsched.data.options import Features
from mlxsched.data.problems import RowProblem, harmless, looks_like
from mlxsched.data.tool_calls import fit_tool_calls, uses_tools
from mlxsched.data.turns import Turns, find_turns


class Rendered(NamedTuple):
    """One row as text.

    Args:
        text: all of it.
        spans: the characters to be predicted; None for all of them.
        unscored: characters that are never predicted, even if all others are.
        answer: the text that the model should answer with, if the row is a question.
        raw: not from a template: the tokenizer adds its own special tokens, and an end token is appended.
        exact: the spans come from the template's own tags and are taken as they are.
        lost_turns: assistant turns that are not in ``spans`` because they were not found.
        ignored_tools: whether the template leaves out the definitions of the tools.
    """

    text: str
    spans: tuple[Span, ...] | None
    unscored: tuple[Span, ...] = ()
    answer: str | None = None
    raw: bool = False
    exact: bool = False
    lost_turns: int = 0
    ignored_tools: bool = False


class Renderer:
    """Renders records with one tokenizer's template (None if it has none)."""

    def __init__(self, template: ChatTemplate | None, mask_prompt: bool) -> None:
        self._template = template
        self._layouts = None if template is None else Layouts(template)
        self._mask_prompt = mask_prompt

    def render(self, record: Mapping[str, Any], format_name: str, features: Features) -> Rendered:
        """The record as text and spans; raises `RowProblem` if it can't be used."""
        if format_name == "text":
            return Rendered(read_text(record, features.text), None, raw=True)
        if format_name == "chat" and self._layouts is not None and "tools" not in record:
            usual = self._usual(self._layouts, record[features.chat])
            if usual is not None:
                return usual
        conversation = read_conversation(record, format_name, features)
        if self._template is None:
            if format_name == "completion" and isinstance(record[features.completion], str):
                return _joined(record, features)
            raise RowProblem(
                "the tokenizer has no chat template; use a chat model, or rows with a prompt and a completion"
            )
        return self._chat(self._template, conversation)

    def _usual(self, layouts: Layouts, messages: Any) -> Rendered | None:
        """A chat of plain messages whose layout is known, which needs no other checks; None for other chats."""
        filled = layouts.fill(messages)
        if filled is None:
            return None
        text, spans = filled
        if (self._mask_prompt and not spans) or not (text.isascii() or _is_encodable(text)):
            return None
        last = messages[-1]
        return Rendered(text, spans, (), last["content"] if last["role"] == "assistant" else None)

    def _chat(self, template: ChatTemplate, chat: Conversation) -> Rendered:
        scored = scored_turns(chat, self._mask_prompt)
        turns = self._layouts.turns(chat.messages) if self._layouts and not chat.tools else None
        ignored_tools = False
        if turns is None:
            turns, ignored_tools = _run(template, chat)
        spans, unscored = self._spans(turns, chat, scored)
        if self._mask_prompt and not spans:
            raise RowProblem(
                "the assistant's turns can't be distinguished from the rest in this chat template's output"
            )
        last_is_found = turns.matched and len(chat.messages) - 1 in turns.spans
        return Rendered(
            turns.text,
            spans,
            unscored,
            answer=_answer(chat.messages) if last_is_found else None,
            exact=turns.tagged,
            lost_turns=len(scored) - len(spans) if turns.matched else 0,
            ignored_tools=ignored_tools,
        )

    def _spans(
        self, turns: Turns, chat: Conversation, scored: list[int]
    ) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
        """The characters to be predicted, and those never to be."""
        if not turns.matched:
            if chat.unscored or chat.context:
                raise RowProblem(
                    "the chat template's {% generation %} tags don't match the assistant messages one to one, "
                    "so it is unknown which of them has which weight"
                )
            return tuple(turns.spans.values()), ()
        if not self._mask_prompt and not chat.unscored <= turns.spans.keys():
            raise RowProblem("a message of weight 0 can't be found in this chat template's output")
        spans = tuple(turns.spans[i] for i in scored if i in turns.spans)
        return spans, tuple(turns.spans[i] for i in sorted(chat.unscored) if i in turns.spans)


def _is_encodable(text: str) -> bool:
    try:
        encodable(text, "")
    except RowProblem:
        return False
    return True


def _run(template: ChatTemplate, chat: Conversation) -> tuple[Turns, bool]:
    """The rendered chat, and whether the template leaves out its tools."""
    messages, tools = chat.messages, chat.tools
    if uses_tools(messages):
        messages = fit_tool_calls(messages, lambda form: template.render(form, tools))
    turns = find_turns(template, messages, tools)
    encodable(turns.text, "the rendered chat")
    _check_roles(messages, turns.text)
    return turns, bool(tools) and template.attempt(messages) == turns.text


def _joined(record: Mapping[str, Any], features: Features) -> Rendered:
    prompt = read_text(record, features.prompt, may_be_empty=True)
    completion = read_text(record, features.completion)
    text = prompt + completion
    return Rendered(text, ((len(prompt), len(text)),), answer=completion, raw=True)


def _check_roles(messages: Messages, text: str) -> None:
    """Some templates silently leave out roles that they don't know."""
    for message in messages:
        if message["role"] not in KNOWN_ROLES and message["content"].strip() not in text:
            role = harmless(message["role"], 30)
            near = looks_like([message["role"]], ROLES)
            raise RowProblem(f'the chat template leaves out what the role "{role}" says{near}')


def _answer(messages: Messages) -> str | None:
    """What the last message says, if it is the assistant's, is text alone and is scored."""
    last = messages[-1]
    if last["role"] != "assistant" or last.get("tool_calls") or last.get("weight") == 0:
        return None
    return str(last["content"])
