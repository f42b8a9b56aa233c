"""Answers are compared without the thinking in front of them, where the tokenizer marks thinking."""

from __future__ import annotations

from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlxsched.data.rows import Example
from mlxsched.model.generate import answer_all, can_match, exact_match, without_thinking
from mlxsched.model.load import load_model
from mlxsched.model.shared_prompt import cache_size, reading_of


@pytest.fixture
def loaded():
    return load_model("tiny")


@pytest.fixture
def thinker(loaded):
    """The bundled tokenizer, with marks around thinking."""
    tokenizer = loaded.tokenizer._tokenizer
    tokenizer.add_tokens(["<think>", "</think>"])
    return TokenizerWrapper(tokenizer)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>\n\n</think>\n\n=B2", "\n\n=B2"),
        ("\n<think>B, then 2</think>=B2", "=B2"),
        ("B, then 2</think>=B2", "=B2"),  # the prompt has opened it
        ("<think>B, then", "<think>B, then"),
        ("=B2", "=B2"),
        ("=B2 <think>or</think> =B3", "=B2 <think>or</think> =B3"),  # not in front
    ],
)
def test_what_is_thought_in_front_of_an_answer_is_left_out(thinker, text, left):
    assert without_thinking(text, thinker) == left


def test_a_tokenizer_that_does_not_think_keeps_the_words(loaded):
    assert without_thinking("<think></think>=B2", loaded.tokenizer) == "<think></think>=B2"


class Speaks(nn.Module):
    """The bundled model, saying a given text after the last token of the prompt whatever its own logits are."""

    def __init__(self, model, tokens):
        super().__init__()
        self.inner, self.layers = model, model.layers
        self.next, self.known = dict(pairwise(tokens)), model.args.vocab_size

    def __call__(self, inputs, cache=None):
        self.inner(inputs % self.known, cache=cache)  # which moves the cache on
        wanted = mx.array([[self.next.get(token, 0) for token in row] for row in inputs.tolist()])
        return 9.0 * (mx.arange(self.known + 2) == wanted[..., None])


def test_an_answer_with_an_empty_thought_is_right(loaded, thinker):
    prompt = thinker.encode("A")
    said = thinker.encode("<think></think>=B2", add_special_tokens=False)
    end = min(thinker.eos_token_ids)
    assert len({prompt[-1], *said, end}) == len(said) + 2  # or one token would have two that follow
    model = Speaks(loaded.model, [prompt[-1], *said, end])
    (answer,) = answers = answer_all(model, thinker, [Example(prompt, "=B2")])
    assert answer.text == "=B2" and exact_match(answers) == 1.0
    (wrong,) = answer_all(model, thinker, [Example(prompt, "=B3")])
    assert not wrong.correct


def test_progress_counts_answers_and_is_called_at_every_token(loaded):
    prompts = [loaded.tokenizer.encode(text) for text in ("A", "B", "C")]
    told: list[tuple[int, int]] = []
    answers = answer_all(
        loaded.model,
        loaded.tokenizer,
        [Example(prompt, "=B2") for prompt in prompts],
        lambda done, total: told.append((done, total)),
    )
    assert len(answers) == 3 and len(told) > 3
    assert {total for _, total in told} == {3} and told[-1] == (3, 3)
    assert told == sorted(told)


@pytest.mark.parametrize(("answer", "expected"), [("=SUM(A1:A9)", True), ("word " * 200, False)])
def test_exact_match_is_for_short_answers(answer, expected):
    tokenizer = load_model("tiny").tokenizer
    assert can_match([Example((1, 2), answer)] * 3, tokenizer) is expected
    assert can_match([], tokenizer) is False


def test_prompts_that_begin_alike_get_the_same_answers_from_less(loaded, monkeypatch):
    encode = loaded.tokenizer.encode
    begin = encode("the sum of all cells of a column, and of the next one: ")
    prompts = [begin + encode(f"{cell}", add_special_tokens=False) for cell in ("A1", "B2 and C3", "D4", "F")]
    examples = [Example(prompt, "=SUM(A1:A9)") for prompt in prompts]
    reading = reading_of(loaded.model, prompts)
    assert reading.length == len(begin) and reading.caches is not None and reading.together
    expected = answer_all(loaded.model, loaded.tokenizer, examples, shared=False)
    assert any(answer.text for answer in expected)
    assert answer_all(loaded.model, loaded.tokenizer, examples) == expected


def test_a_model_that_is_another_one_behind_a_cache_reads_whole_prompts(loaded):
    class Counts(Speaks):
        def __call__(self, inputs, cache=None):
            return self.inner(inputs + inputs.shape[1] // 20, cache=cache)

    prompts = [[*range(5, 24), number, number + 1] for number in (40, 50)]
    assert reading_of(loaded.model, prompts).length == 19
    assert reading_of(loaded.model, prompts, shared=False) == (0, None, True)
    assert reading_of(Counts(loaded.model, []), prompts) == (0, None, True)
    assert reading_of(loaded.model, prompts[:1]) == (0, None, True)

    class OneRowOnly(Speaks):
        def __call__(self, inputs, cache=None):
            return self.inner(inputs, cache=cache) * (1 if inputs.shape[0] == 1 else -1)

    class AlmostTied(Speaks):
        def __call__(self, inputs, cache=None):
            tie = mx.arange(self.known) == inputs.shape[0] % 2
            return self.inner(inputs, cache=cache) * 0 + 9 + 1e-3 * tie

    for model in (OneRowOnly(loaded.model, []), AlmostTied(loaded.model, [])):
        reading = reading_of(model, prompts)
        assert reading.length == 19 and not reading.together
        assert reading_of(model, prompts, shared=False) == (0, None, False)


def test_a_model_that_takes_in_padding_answers_one_by_one(build, loaded):
    """mlx-lm's Mamba goes on through the padding of a shorter prompt."""
    sizes = {"state_size": 8, "conv_kernel": 4, "time_step_rank": 4}
    model = build("mamba", layers=2, use_bias=False, use_conv_bias=True, **sizes)
    prompts = [[*range(5, 26), *rest] for rest in ([30, 31, 32, 33], [31, 35, 40] * 7)]
    examples = [Example(prompt, "=SUM(A1:A9)") for prompt in prompts]
    alone = [answer_all(model, loaded.tokenizer, [example])[0] for example in examples]
    for shared in (True, False):
        assert not reading_of(model, prompts, shared=shared).together
        assert answer_all(model, loaded.tokenizer, examples, shared=shared) == alone


def test_prompts_that_begin_alike_reach_behind_a_sliding_window(build, loaded):
    """The common tokens are more than the window of 8, and the prompts go on to different lengths."""
    model = build("gemma3_text", layers=4, sliding_window=8, sliding_window_pattern=2)
    prompts = [[*range(5, 26), *rest] for rest in ([30], [31, 32, 33, 34, 35], [36, 37, 38] * 5)]
    assert reading_of(model, prompts).length == 21
    examples = [Example(prompt, "=SUM(A1:A9)") for prompt in prompts]
    expected = answer_all(model, loaded.tokenizer, examples, shared=False)
    assert len({answer.text for answer in expected}) == 3
    assert answer_all(model, loaded.tokenizer, examples) == expected


def test_answers_take_no_more_memory_than_they_may_and_stay_the_same(loaded):
    encode = loaded.tokenizer.encode
    examples = [Example(encode(f"the sum of {cell}"), "=SUM(A1:A9)") for cell in "ABCDEFGHIJKLMNOP"]
    peaks, answers = [], []
    for memory in (None, 12_000_000, 0):
        base = mx.get_active_memory()
        mx.reset_peak_memory()
        answers.append(answer_all(loaded.model, loaded.tokenizer, examples, memory=memory))
        peaks.append(mx.get_peak_memory() - base)
    assert answers[0] == answers[1] == answers[2]
    assert peaks[0] > 24_000_000 and peaks[1] < 16_000_000 and peaks[2] < 16_000_000


def test_the_size_of_caches_counts_fixed_states_once_and_stays_within_the_positions(build, loaded):
    grows = cache_size(loaded.model, 512)
    assert cache_size(loaded.model, 1024) - grows == 2 * (grows - cache_size(loaded.model, 256))
    sizes = {"state_size": 8, "conv_kernel": 4, "time_step_rank": 4}
    fixed = build("mamba", layers=2, use_bias=False, use_conv_bias=True, **sizes)
    assert cache_size(fixed, 100_000) == cache_size(fixed, 1) > 0
    sizes = {"n_embd": 32, "n_head": 2, "n_layer": 2, "n_ctx": 64, "layer_norm_epsilon": 1e-5}
    table = build("gpt2", layers=2, n_positions=64, **sizes)
    read = []

    class Watched(type(table)):
        def __call__(self, inputs, *more, **named):
            read.append(inputs.shape[1])
            return super().__call__(inputs, *more, **named)

    table.__class__ = Watched
    assert cache_size(table, 40) > 0 and max(read) == 64
