"""A tokenizer's chat template, which is a program of somebody else's: it may refuse a chat, or never end."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mlxsched.data.compiled_template import CompiledTemplate, Rendering
from mlxsched.data.holes import HoledMessage, Trace
from mlxsched.data.messages import Messages
from mlxsched.data.outlines import Outline, Outlines, outline_of
from mlxsched.data.problems import RowProblem, harmless
from mlxsched.data.time_limit import TimeLimitExceeded, time_limit
from mlxsched.data.watching import refuse_looks

Span = tuple[int, int]  # first character, and the one after the last
Tools = list[dict[str, Any]] | None

# Llama 3's templates write today's date into each row by default. Rows must be the same tomorrow.
_FIXED_DATE = "26 Jul 2024"
_GENERATION_TAG = re.compile(r"{%-?\s*generation\s*-?%}")
# A chat takes milliseconds. The sandbox of Jinja limits a single loop, but not loops within loops.
SECONDS = 3.0
MAX_CHARACTERS = 32 * 2**20
# The first so many renderings of our own are compared with those of transformers.
_COMPARED = 16


class EndlessTemplateError(Exception):
    """The template took more than `SECONDS`. Not a `RowProblem`: every other row would take as long."""


class ChatTemplate:
    """Renders chats.

    Args:
        tokenizer: mlx-lm's wrapper, or a tokenizer of transformers.
        ends: the texts of the tokens that end a turn.
    """

    def __init__(self, tokenizer: Any, ends: Sequence[str]) -> None:
        self.ends = tuple(end for end in ends if end)
        self._tokenizer = tokenizer
        source = getattr(tokenizer, "chat_template", None)
        sources = (
            source.values() if isinstance(source, dict) else [source]
        )  # named templates: default, tool_use
        text = "".join(str(part) for part in sources if part)
        takes_date = "date_string" in text
        self._extra = {"date_string": _FIXED_DATE} if takes_date else {}
        self._tagged = _GENERATION_TAG.search(text) is not None
        self.writes_today = "strftime_now" in text and not takes_date
        self._compiled = _compile(tokenizer, self._extra)
        self._watched = _compile(tokenizer, self._extra, refuse_looks)
        self._agreed = 0
        self._outlines = Outlines(
            lambda roles, contents, prompt: self.outline(roles, contents, prompt=prompt),
            lambda messages, prompt: self._run(messages, prompt=prompt),
        )

    def render(self, messages: Messages, tools: Tools = None, *, prompt: bool = False) -> str:
        """The text of ``messages``; with ``prompt``, followed by the beginning of an assistant's turn.

        Raises:
            RowProblem: the template refuses the messages, or writes too much.
            EndlessTemplateError: it takes too long.
        """
        return self.render_with_cuts(messages, tools, prompt=prompt).text

    def render_with_cuts(self, messages: Messages, tools: Tools = None, *, prompt: bool = False) -> Rendering:
        """Like `render`, with what is known of the renderings of the first few messages."""
        if tools is None and self.is_proved:
            filled = self._outlines.rendering(messages, prompt=prompt)
            if filled is not None:
                return filled
        return self._run(messages, tools, prompt=prompt)

    def _run(self, messages: Messages, tools: Tools = None, *, prompt: bool = False) -> Rendering:
        found = self._render_compiled(messages, tools, prompt=prompt)
        if found is not None and self.is_proved:
            return found
        apply = self._tokenizer.apply_chat_template
        call = partial(
            apply, messages, tools=tools, add_generation_prompt=prompt, tokenize=False, **self._extra
        )
        text = str(_guarded(call))
        if len(text) > MAX_CHARACTERS:
            raise RowProblem(f"the chat template makes more than {MAX_CHARACTERS:,} characters of it")
        if found is None:
            return Rendering(text)
        self._agreed += 1
        if found.text != text:
            self._compiled = None
            return Rendering(text)
        return found

    @property
    def is_proved(self) -> bool:
        """Whether our first renderings have all agreed with those of transformers; False until there are enough."""
        return self._compiled is not None and self._agreed >= _COMPARED

    def outline(
        self, roles: Sequence[str], contents: Sequence[str] | None = None, *, prompt: bool = False
    ) -> Outline | None:
        """The outline of chats like this one; None if the template uses a content in a way that can't be recorded.

        Without ``contents``, the result is also None if the template asks anything about them.
        """
        if self._watched is None or self._tagged:
            return None
        trace = Trace(contents, len(roles))
        messages: Messages = [
            HoledMessage(role=role, content=hole) for role, hole in zip(roles, trace.holes, strict=True)
        ]
        try:
            return outline_of(trace, _guarded(partial(self._watched.render_plain, messages, prompt=prompt)))
        except (RowProblem, EndlessTemplateError):  # it refuses them, or takes longer than without holes
            return None

    def _render_compiled(self, messages: Messages, tools: Tools, *, prompt: bool) -> Rendering | None:
        if self._compiled is None:
            return None
        try:
            found: Rendering | None = _guarded(partial(self._compiled.render, messages, tools, prompt=prompt))
        except RowProblem:
            return None  # transformers may not refuse it, and if it does, says why
        return None if found is None or len(found.text) > MAX_CHARACTERS else found

    def attempt(self, messages: Messages, tools: Tools = None, *, prompt: bool = False) -> str | None:
        """`render`, or None: a template may refuse part of a chat that it takes as a whole."""
        try:
            return self.render(messages, tools, prompt=prompt)
        except RowProblem:
            return None

    def tagged_spans(self, messages: Messages, tools: Tools, text: str) -> list[Span] | None:
        """What stands between ``{% generation %}`` tags in ``text``; None for a template without such tags."""
        if not self._tagged:
            return None
        from transformers.utils.chat_template_utils import render_jinja_template

        inner = getattr(self._tokenizer, "_tokenizer", self._tokenizer)
        inner = inner if hasattr(inner, "special_tokens_map") else self._tokenizer
        # mlx-lm's wrapper passes enable_thinking. The spans are those of the variant that gives the same text.
        for more in ({}, {"enable_thinking": True}, {"enable_thinking": False}):
            arguments = {
                "conversations": [_without_nulls(messages)],
                "tools": tools,
                "chat_template": inner.get_chat_template(tools=tools),
                "return_assistant_tokens_mask": True,
                **inner.special_tokens_map,
                **self._extra,
                **more,
            }
            with contextlib.suppress(RowProblem):
                rendered, spans = _guarded(partial(render_jinja_template, **arguments))
                if rendered[0] == text:
                    return [(int(begin), int(end)) for begin, end in spans[0]]
        return None


def _compile(
    tokenizer: Any, extra: dict[str, Any], adapt: Callable[[Any, Any], None] | None = None
) -> CompiledTemplate | None:
    """The template, if it is one that we can run ourselves: not one of several, and none of mlx-lm's Python functions."""
    inner = getattr(tokenizer, "_tokenizer", tokenizer)
    inner = inner if hasattr(inner, "special_tokens_map") else tokenizer
    source = getattr(inner, "chat_template", None)
    if not isinstance(source, str) or getattr(tokenizer, "_chat_template", None) is not None:
        return None
    thinking = getattr(tokenizer, "_thinking_kwarg", None)  # mlx-lm's wrapper passes it
    more = {} if thinking is None else {thinking: tokenizer.has_thinking}
    try:
        return CompiledTemplate(source, {**inner.special_tokens_map, **more, **extra}, adapt)
    except Exception:  # noqa: BLE001 - another version of transformers, or no valid template: it will say so
        return None


def _guarded(render: Callable[[], Any]) -> Any:
    """Run a template: within the time limit, and with its exceptions as `RowProblem`."""
    try:
        with time_limit(SECONDS):
            return render()
    except TimeLimitExceeded:
        raise EndlessTemplateError from None
    except Exception as error:  # noqa: BLE001 - a template raises anything
        raise RowProblem(f"the chat template refuses it: {harmless(str(error))}") from None


def _without_nulls(messages: Messages) -> Messages:
    # As transformers does it before rendering: to a template, a null is a key that is not there.
    return [{key: value for key, value in message.items() if value is not None} for message in messages]
