"""Chats that are filled into an outline have the same text and turns as those that transformers renders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compiled_template import _END, _HEAD, TEMPLATES
from test_layouts import LOOKING_INSIDE

from mlxsched.data import chat as chat_module
from mlxsched.data import outlines as outlines_module
from mlxsched.data.chat import ChatTemplate
from mlxsched.data.encode import Encoder
from mlxsched.data.messages import Messages
from mlxsched.data.options import Features
from mlxsched.data.outlines import Outline
from mlxsched.data.problems import RowProblem
from mlxsched.data.rendering import Rendered, Renderer
from mlxsched.data.turns import find_turns

Pair = tuple[ChatTemplate, ChatTemplate]
MakePair = Callable[[str], Pair]
SAID = [
    "a", " a ", "two\nlines\n", "\n\nb", "<think>\nhm\n</think>\n\nyes", "<think>\n\n</think>\n\n", "<think>", "</think>", "\n",
    "<tool_response>", "</tool_response>", "<|im_end|>", "<|im_end|", "<", "é 🙂", "assistant", "<|im_start|>assistant\n", "%s",
]  # fmt: skip
said = st.lists(st.sampled_from(SAID), min_size=0, max_size=3).map("".join)
first = st.lists(st.fixed_dictionaries({"role": st.just("system"), "content": said}), max_size=1)
exchange = st.tuples(said, said).map(
    lambda pair: [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
)
any_message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": said}
)
usual = st.tuples(first, st.lists(exchange, min_size=1, max_size=3)).map(
    lambda parts: [*parts[0], *(message for pair in parts[1] for message in pair)]
)
chats = st.one_of(usual, usual, st.lists(any_message, min_size=1, max_size=4))
# Uses of contents that are recorded.
RECORDED = [
    "{{ 'x' if 'a' in m.content }}", "{{ 'x' if '' in m.content }}", "{{ 'x' if '<' not in m.content }}",
    "{{ 'x' if m.content.startswith('a') }}", "{{ 'x' if m.content.endswith('\n') and not m.content.startswith('<') }}",
    "{{ m.content == 'a' }}", "{{ m.content != ' a ' }}", "{{ m.content == false }}", "{{ 'x' if m.content in ['a', '<'] }}",
    "{{ m.content.split('</think>')[-1].lstrip('\n') }}", "{{ m.content.split('</think>')[0].rstrip('\n').split('<think>')[-1] }}",
    "{{ m.content.split('\n', 1)[1] }}", "{% for part in m.content.split('a') %}[{{ part.strip() }}]{% endfor %}",
    "{% set x = m.content.strip('a') %}{{ '(' + x + ')' if x else 'nothing' }}", "{{ m.content.split('a') | length }}",
    "{{ m.content.strip('<').strip('<') }}",
    "{% macro f(x) %}{{ x }}{% endmacro %}{% set y = f(m.content) | trim %}{{ 'x' if 'a' in y else y }}",
    "{% macro f(x) %}{{ x.split('a')[0] }}{% endmacro %}{{ f(m.content).strip('b') }}",
    "{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(m.content.strip('a')) + f('b') }}", "{{ m.content | default('', true) | string | trim }}",
    "{% set x %}{{ m.content }}{% endset %}{{ x.strip('a') }}", "{% set x = m.content ~ '' %}{{ 'x' if x.startswith('a') }}",
    "{% if m.content.strip('a') | trim | length > 0 %}x{% endif %}{{ messages | length > 0 }}", "{{ ('' + m.content + '').strip('a') }}",
    "{{ 'x' if (m.content.strip('a') ~ '') else 'y' }}", "{% set x = '<' ~ m.content ~ '>' %}{{ x ~ 1 ~ none ~ x }}",
    "{% set x = 'a' %}{{ 'x' if x in m.content }}{{ 'y' if x not in m.content }}", "{% set n = namespace(x=m.content) %}{{ n.x.strip('b') }}",
    "{{ 'x' if 'a' in m.content.split('<') }}", "{{ m.content.lstrip() }}", "{{ messages[::-1][0].content.rstrip() }}",
]  # fmt: skip
# Similar ones that are not.
NOT_RECORDED = [
    "{% set x = m.content.strip('a') + m.content %}{{ x or 'nothing' }}", "{% macro f(x) %}<{{ x }}{% endmacro %}{{ f(m.content) | trim }}", "{% set x = m.content ~ '.' %}{{ 'x' if 'a' in x }}",
    "{% macro f(x) %}{{ x | upper }}{% endmacro %}{{ f(m.content) }}", "{{ 'x' if m.content in 'abc' }}", "{{ m.content ~ [m.content] }}",
    "{{ 'x' if (m.content.strip('a') ~ m.content.strip('b')) else 'y' }}", "{{ m.content.split() }}", "{{ m.content.split('a') }}",
    "{{ m.content.split('a') | join }}", "{{ m.content.strip(m.content) }}",
    "{{ m.content.startswith(('a', 'b')) }}", "{{ m.content.split('a') | tojson }}", "{{ m.copy().items() | list }}",
    "{{ m.content.split('a')[0] | upper }}", "{{ m.content.startswith('a', 1) }}", "{{ m.content == m.content }}",
    "{{ m.content | length > 1 }}", "{{ 0 < m.content | length }}", "{{ 'x' if m.content in m.content.split('a') }}", "{{ m.content.count('a') }}",
]  # fmt: skip


@pytest.fixture
def pair(with_template: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> MakePair:
    """A template whose renderings and outlines count as proved, and one that leaves everything to transformers."""
    monkeypatch.setattr(outlines_module, "COMPARED", 0)
    monkeypatch.setattr(chat_module, "_COMPARED", 0)

    def make(source: str) -> Pair:
        ours, theirs = (Encoder(with_template(source), True).template() for _ in range(2))
        assert ours is not None and theirs is not None
        theirs._compiled = None
        return ours, theirs

    return make


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except RowProblem as problem:
        return problem.what


def _filled(template: ChatTemplate, messages: Messages) -> bool:
    """Whether the second chat like ``messages`` is filled into an outline."""
    return any(template._outlines.rendering(messages, prompt=False) is not None for _ in range(2))


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_and_turns_are_those_of_transformers(name: str, pair: MakePair) -> None:
    ours, theirs = pair(TEMPLATES[name])

    @settings(max_examples=25 if name == "QWEN3_WHOLE" else 5, deadline=None)
    @given(chats)
    def same(messages: Messages) -> None:
        expected = _outcome(lambda: find_turns(theirs, messages))
        for _ in range(2):  # an outline is learned from the second one
            assert _outcome(lambda: find_turns(ours, messages)) == expected

    same()


@pytest.mark.parametrize("part", [*RECORDED, *NOT_RECORDED, *LOOKING_INSIDE])
def test_any_use_of_contents_gives_the_turns_of_transformers(part: str, pair: MakePair) -> None:
    ours, theirs = pair(_HEAD + part + _END)
    chat = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "b\na"}]
    if part in RECORDED:
        assert _filled(ours, chat)
    if part in NOT_RECORDED:
        assert not _filled(ours, chat)

    @settings(max_examples=8, deadline=None)
    @given(usual)
    def same(messages: Messages) -> None:
        expected = _outcome(lambda: find_turns(theirs, messages))
        for _ in range(2):
            assert _outcome(lambda: find_turns(ours, messages)) == expected

    same()


def test_rows_of_qwen3_are_those_of_transformers(pair: MakePair) -> None:
    renderers = [Renderer(template, True) for template in pair(TEMPLATES["QWEN3_WHOLE"])]
    tools = st.sampled_from(
        [None, [{"type": "function", "function": {"name": "f", "parameters": {"x": None}}}]]
    )

    def rendered(renderer: Renderer, record: dict[str, Any]) -> Rendered | str:
        found: Rendered | str = _outcome(lambda: renderer.render(record, "chat", Features()))
        return found

    @settings(max_examples=25, deadline=None)
    @given(chats, tools)
    def same(messages: Messages, tools: Any) -> None:
        record = {"messages": messages} if tools is None else {"messages": messages, "tools": tools}
        ours, theirs = (rendered(renderer, record) for renderer in renderers)
        assert ours == theirs == rendered(renderers[0], record)

    same()


@pytest.mark.parametrize(
    "answers", [("4", "6"), ("<think>\nhm\n</think>\n\n4", "<think>\nwell\n</think>\n\n6")]
)
def test_the_template_of_qwen3_is_not_run_once_its_outlines_are_known(
    answers: tuple[str, str], pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    template, _ = pair(TEMPLATES["QWEN3_WHOLE"])
    chat = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": answers[0]}, {"role": "user", "content": "3 + 3?"},
        {"role": "assistant", "content": answers[1]},
    ]  # fmt: skip
    expected = [find_turns(template, chat) for _ in range(2)][1]
    monkeypatch.setattr(template, "_run", lambda *_, **__: pytest.fail("the template was run"))
    assert find_turns(template, chat) == expected
    assert len(expected.spans) == 2


def test_an_outline_that_differs_from_the_template_is_not_used(
    pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair(TEMPLATES["chatml"])
    monkeypatch.setattr(outlines_module, "COMPARED", 1)
    learn = ours._outlines._learn

    def wrong(*given: Any) -> Outline:
        found = learn(*given)
        assert found is not None
        return replace(found, parts=("!", *found.parts[1:]))

    ours._outlines._learn = wrong
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    assert not _filled(ours, chat)
    ours._outlines._learn = learn
    assert not _filled(ours, chat * 2)  # nor is any other
    assert find_turns(ours, chat) == find_turns(theirs, chat)


def test_the_number_of_outlines_is_limited(pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines_module, "MOST", 1)
    monkeypatch.setattr(outlines_module, "_MOST_ATTEMPTS", 1)
    ours, theirs = pair(TEMPLATES["QWEN3"])
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    thinking = [chat[0], {"role": "assistant", "content": "<think>\nhm\n</think>\n\nhello"}]
    assert _filled(ours, chat)
    assert not _filled(ours, chat * 2)
    assert not _filled(ours, thinking)
    assert not _filled(ours, [{"role": "user", "content": "hi"}] * 65)
    assert find_turns(ours, thinking) == find_turns(theirs, thinking)


def test_an_outline_is_not_learned_from_a_refused_chat(pair: MakePair) -> None:
    ours, theirs = pair(TEMPLATES["gemma"])
    chat = [{"role": "system", "content": "hi"}, {"role": "user", "content": "hello"}]
    assert not _filled(ours, chat)
    assert _outcome(lambda: ours.render(chat)) == _outcome(lambda: theirs.render(chat))


def test_a_content_of_many_parts_has_no_outline(pair: MakePair) -> None:
    """Filling it in would take the square of their number, outside the time limit."""
    ours, theirs = pair(_HEAD + "{% for line in m.content.split('\n') %}[{{ line }}]{% endfor %}" + _END)
    few, many = ([{"role": "user", "content": "x\n" * lines}] for lines in (3, 300))
    assert not _filled(ours, many)
    assert ours.render(many) == theirs.render(many)
    assert _filled(ours, few)


@pytest.mark.parametrize("part", ["{{ m.content | upper }}", "{{ m.content.split('a') | length }}"])
def test_outlines_that_save_nothing_are_given_up(
    part: str, pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlines_module, "_PATIENCE", 30)
    ours, theirs = pair(_HEAD + part + _END)
    ours._outlines._patience = 30
    for count in range(1, 50):
        chat = [{"role": "user", "content": "ab" * count}]
        assert ours.render(chat) == theirs.render(chat)
    assert ours._outlines._patience < 0
    assert not _filled(ours, chat)


def test_outlines_stop_learning_when_they_hold_many_messages(
    pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlines_module, "_MOST_KEPT", 5)
    ours, theirs = pair(_HEAD + "{% if 'x' in m.content %}y{% endif %}" + _END)
    for count in range(1, 9):
        chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * count
        for _ in range(3):
            assert ours.render(chat) == theirs.render(chat)
    assert len([one for one in ours._outlines._known.values() if one]) < 8
