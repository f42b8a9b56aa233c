"""Where the assistant speaks in a rendered chat, for any template.

Templates with ``{% generation %}`` tags say so themselves. Of the others the boundaries are found by rendering parts
of the chat. For an assistant message i of a chat m, if these are prefixes of the whole text,

    begin = length of render(m[:i], with the prompt for a generation)
    end   = length of render(m[:i + 1])

Many templates write an earlier turn differently once others follow: they remove its thinking (Qwen3), open a
thinking block in the prompt only (Qwen3.5, DeepSeek), end only the last turn with a token (OLMo), or with another
token (gpt-oss). Then these prefixes don't match, and the turn is found by what changes in the whole text when its
content changes. A turn that can't be found is not trained on, and counted.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mlxsched.data.chat import ChatTemplate, Span, Tools
from mlxsched.data.compiled_template import Rendering
from mlxsched.data.messages import Messages

# Two contents that share neither first letter, last letter nor length: whatever the real content is, at least one of
# them differs from it in each of the three.
_OTHER_CONTENTS = ("Zqxj", "Jxqzw")
_OPEN_TAG = re.compile(r"[<\[][^\s<>\[\]]*\Z")  # "<thi" or "[TH" at the end of a text


class Turns(NamedTuple):
    """A rendered chat.

    Args:
        text: all of it.
        spans: the characters of each assistant message that was found, by its index. From generation tags they may
            be numbered otherwise; see ``matched``.
        tagged: whether the template's own tags gave the spans.
        matched: whether the keys of ``spans`` are indices of messages. If False, a template has more or fewer tags
            than there are assistant messages, and only all spans together can be used.
    """

    text: str
    spans: dict[int, Span]
    tagged: bool = False
    matched: bool = True


def find_turns(template: ChatTemplate, messages: Messages, tools: Tools = None) -> Turns:
    """Render a chat and find its assistant turns; raises `RowProblem` if the template refuses the chat."""
    whole = template.render_with_cuts(messages, tools)
    text = whole.text
    turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    tagged = template.tagged_spans(messages, tools, text)
    if tagged is not None:
        matched = len(tagged) == len(turns)
        return Turns(
            text, dict(zip(turns if matched else range(len(tagged)), tagged, strict=True)), True, matched
        )
    finder = _Finder(template, messages, tools, whole)
    begins = [finder.begin(index) for index in turns]
    spans = {}
    for index, begin, following in zip(turns, begins, [*begins, len(text)][1:], strict=True):
        end = None if begin is None else finder.end(index, begin, following)
        if begin is not None and end is not None and end > begin:
            spans[index] = begin, end
    return Turns(text, spans)


class _Finder:
    """Finds where assistant messages begin and end in ``whole``, the rendering of all ``messages``."""

    def __init__(self, template: ChatTemplate, messages: Messages, tools: Tools, whole: Rendering) -> None:
        self._template = template
        self._messages = messages
        self._tools = tools
        self._whole = whole
        self._text = whole.text
        self._changes: dict[int, Span | None] = {}

    def begin(self, index: int) -> int | None:
        """Where the model would start to write message ``index``."""
        known = self._whole.end_of(index, prompt=True)
        if known is not None:
            return known
        text = self._text
        prompt = self._first(index, prompt=True)
        if prompt is not None and text.startswith(prompt):
            return len(prompt)
        without = "" if index == 0 else self._first(index)
        if prompt is None or without is None:
            return None
        if text.startswith(without):
            return self._begin_after_divergence(index, prompt, without)
        return self._begin_after_header(index, prompt, without)

    def _first(self, count: int, *, prompt: bool = False) -> str | None:
        """The rendering of the first ``count`` messages; None if the template refuses them."""
        known = self._whole.beginning(count, prompt=prompt)
        if known is not None:
            return known
        return self._template.attempt(self._messages[:count], self._tools, prompt=prompt)

    def _begin_after_divergence(self, index: int, prompt: str, without: str) -> int:
        """The prompt opens more than the text keeps, such as a thinking block: begin where the two part.

        If that is within the content, or within a tag ("<tool_call>" where the prompt has "<think>"), begin with it.
        """
        text = self._text
        parted = max(_shared(text, prompt), len(without))
        content = str(self._messages[index].get("content") or "").strip()
        found = text.find(content, max(parted - len(content), len(without)), parted + len(content))
        if content and 0 <= found <= parted:
            return found
        tag = _OPEN_TAG.search(text, len(without), parted)
        return parted if tag is None else tag.start()

    def _begin_after_header(self, index: int, prompt: str, without: str) -> int | None:
        """An earlier turn is rewritten too: begin after the header that stands before the content."""
        change = self._change(index)
        if change is None or not prompt.startswith(without):
            return None
        header = prompt[len(without) :]
        found = self._text.rfind(header, self._earliest(index), change[0])
        return change[0] if found < 0 else found + len(header)

    def _earliest(self, index: int) -> int:
        """Where the content of the message before ends: the header of message ``index`` is behind it."""
        before = self._any_change(index - 1) if index else None
        return 0 if before is None else before[1]

    def end(self, index: int, begin: int, limit: int | None) -> int | None:
        """The end of message ``index``: after its end token if it has one, else after its content."""
        text = self._text
        if index == len(self._messages) - 1:
            return self._end_of_last(begin)
        known = self._whole.end_of(index + 1)
        if known is not None and known > begin:
            return self._with_end_token(known)
        through = self._first(index + 1)
        ends = self._template.ends
        if through is not None and len(through) > begin and text.startswith(through):
            return self._with_end_token(len(through))
        found = [text.find(end, begin, limit) + len(end) for end in ends if end in text[begin:limit]]
        if found:
            return min(found)
        # No end token of the tokenizer: this template ends only the last turn with one, or ends earlier turns with
        # a token that must not be learned as an end (gpt-oss). What follows the content is left out.
        change = None if self._messages[index].get("tool_calls") else self._change(index)
        return change[1] if change is not None else None

    def _end_of_last(self, begin: int) -> int:
        """The end of the text, or the last end token if a template writes the next prompt behind it unasked."""
        text, message = self._text, self._messages[-1]
        ends = [text.rfind(end, begin) + len(end) for end in self._template.ends if end in text[begin:]]
        last = max(ends, default=len(text))
        said = str(message.get("content") or "").strip().rpartition("\n")[2]
        is_prompt = text[last:].strip() and not message.get("tool_calls") and said not in text[last:]
        return last if is_prompt else len(text)

    def _with_end_token(self, end: int) -> int:
        """``end``, or behind the end token that follows: GLM's turns end where the next one begins, at <|user|>."""
        text, ends = self._text, self._template.ends
        if text.endswith(ends, 0, end) or text[:end].rstrip().endswith(ends):
            return end
        return next((end + len(token) for token in ends if text.startswith(token, end)), end)

    def _change(self, index: int) -> Span | None:
        """The characters of the text that depend on the content of message ``index``, behind those of the one before.

        None if there are none, or if they are not in one place. A template may write the length of a message at the
        top, or its content twice; what is between must not be taken for the assistant's.
        """
        change = self._any_change(index)
        return change if change is not None and change[0] >= self._earliest(index) else None

    def _any_change(self, index: int) -> Span | None:
        if index not in self._changes:
            self._changes[index] = self._find_change(index)
        return self._changes[index]

    def _find_change(self, index: int) -> Span | None:
        text = self._text
        begin, end = len(text), 0
        for content in _OTHER_CONTENTS:
            other = list(self._messages)
            other[index] = {**other[index], "content": content}
            changed = self._template.attempt(other, self._tools)
            if changed is None or changed.count(content) != 1:
                return None
            begin = min(begin, _shared(text, changed))
            end = max(end, len(text) - _shared(text[::-1], changed[::-1]))
        # Where content was inserted, what surrounds it may match both ways, and the end lie before the begin.
        return begin, max(begin, end)


def _shared(one: str, other: str) -> int:
    """The length of the common prefix of two texts."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # binary search: a loop over characters took half the time of finding turns
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
