"""Where the assistant speaks in a rendered chat, for any template.

The template is asked rather than known. For an assistant turn i of a chat m,

    begin = length of render(m[:i], with the prompt for a generation)
    end   = length of render(m[:i+1])

as long as these are prefixes of the whole rendering. Where the template writes earlier turns differently once
others follow (it strips their thinking, say), the turn's end is the first end-of-turn token after its
beginning; where the beginning can't be found either, the turn is not trained on, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlxsched.data.problems import RowProblem, harmless

Messages = list[dict[str, Any]]
Span = tuple[int, int]
# Llama 3's templates write today's date into each row unless told one; rows must be the same ones tomorrow.
_FIXED_DATE = "26 Jul 2024"


class ChatTemplate:
    """A tokenizer's chat template; ``ends`` are the texts of the tokens that end a turn."""

    def __init__(self, tokenizer: Any, ends: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._ends = tuple(end for end in ends if end)
        source = getattr(tokenizer, "chat_template", None)
        takes_date = isinstance(source, str) and "date_string" in source
        self._extra = {"date_string": _FIXED_DATE} if takes_date else {}
        self.writes_today = isinstance(source, str) and "strftime_now" in source and not takes_date

    def render(self, messages: Messages, tools: Any = None, *, prompt: bool = False) -> str:
        """The text of ``messages``, with the beginning of the assistant's turn after it when ``prompt``."""
        text = self._tokenizer.apply_chat_template(
            messages, tools=tools, add_generation_prompt=prompt, tokenize=False, **self._extra
        )
        return str(text)

    def spans(self, messages: Messages, tools: Any = None) -> tuple[str, list[Span], int]:
        """The whole text, where each assistant turn stands in it, and how many turns could not be found."""
        try:
            text = self.render(messages, tools)
        except Exception as error:  # noqa: BLE001 - a template is a program: it raises anything
            raise RowProblem(f"the chat template refuses it: {harmless(str(error))}") from None
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        begins = {i: self._begin(text, messages, i, tools) for i in turns}
        spans = []
        for position, i in enumerate(turns):
            begin = begins[i]
            limit = begins[turns[position + 1]] if position + 1 < len(turns) else len(text)
            end = None if begin is None else self._end(text, messages, i, tools, begin, limit)
            if begin is not None and end is not None and end > begin:
                spans.append((begin, end))
        return text, spans, len(turns) - len(spans)

    def _begin(self, text: str, messages: Messages, i: int, tools: Any) -> int | None:
        before = self._try(messages[:i], tools, prompt=True)
        if before is not None and text.startswith(before):
            return len(before)
        # Some templates open a generation with more than they keep of an answer (a thinking tag): the answer
        # begins where the two part, after all of the earlier messages; a little before if it begins like the tag.
        silent = "" if i == 0 else self._try(messages[:i], tools)
        if before is None or silent is None or not text.startswith(silent):
            return None
        parted = max(_shared(text, before), len(silent))
        words = str(messages[i].get("content") or "").strip()
        found = text.find(words, max(parted - len(words), len(silent)), parted + len(words))
        return parted if found < 0 else found

    def _end(
        self, text: str, messages: Messages, i: int, tools: Any, begin: int, limit: int | None
    ) -> int | None:
        if i == len(messages) - 1:
            return len(text)
        through = self._try(messages[: i + 1], tools)
        if through is not None and len(through) > begin and text.startswith(through):
            return len(through)
        found = [text.find(end, begin, limit) + len(end) for end in self._ends if end in text[begin:limit]]
        return min(found, default=None)

    def _try(self, messages: Messages, tools: Any, *, prompt: bool = False) -> str | None:
        try:
            return self.render(messages, tools, prompt=prompt)
        except Exception:  # noqa: BLE001 - a template may refuse part of what it takes as a whole
            return None


def _shared(one: str, other: str) -> int:
    """Number of characters that two texts have in common at their beginning."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
