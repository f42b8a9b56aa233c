"""Special tokens that a text brings along are not added a second time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mlxsched.data.encode import Encoder
from mlxsched.data.rendering import Rendered


class Slow:
    """The same tokenizer, without the offsets that only fast ones have."""

    is_fast = False

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.fixture(params=["fast", "slow"])
def tokenizer(request: pytest.FixtureRequest, make_tokenizer: Callable[..., Any]) -> Any:
    """Adds <s> and </s> to every text, as Llama 2's does with its begin token and T5's with its end token."""
    from tokenizers.processors import TemplateProcessing

    fast = make_tokenizer("mistral")
    ids = [(mark, fast.convert_tokens_to_ids(mark)) for mark in ("<s>", "</s>")]
    fast.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    return fast if request.param == "fast" else Slow(fast)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", ["<s>", "</s>"]),
        ("<s>hello", ["<s>", "</s>"]),
        ("hello</s>", ["<s>", "</s>"]),
        ("<s>hello</s>", ["<s>", "</s>"]),
        ("<s><s>hello", ["<s>", "<s>", "<s>", "</s>"]),  # twice in the text: meant
        ("hello <s>", ["<s>", "<s>", "</s>"]),
    ],
)
def test_a_mark_that_the_text_has_is_not_doubled(text: str, expected: list[str], tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, mask_prompt=True)
    (row,) = encoder.encode([Rendered(text, None, raw=True)])
    marks = [mark for mark in tokenizer.convert_ids_to_tokens(row.tokens.tolist()) if mark in ("<s>", "</s>")]
    assert marks == expected
    assert row.targets.tolist() == [False] + [True] * (len(row.tokens) - 1)


def test_the_spans_of_a_prompt_with_a_begin_token(tokenizer: Any) -> None:
    prompt, answer = "<s>two?", " four"
    encoder = Encoder(tokenizer, mask_prompt=True)
    spans = ((len(prompt), len(prompt + answer)),)
    (row,) = encoder.encode([Rendered(prompt + answer, spans, answer=answer, raw=True)])
    assert tokenizer.decode(row.tokens[row.targets].tolist()) == " four</s>"
    assert tokenizer.decode(row.tokens[: row.prompt_length].tolist()) == "<s>two?"
