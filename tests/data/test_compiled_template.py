"""One rendering of a chat gives what many renderings by transformers give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chat_templates
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_families import FAMILIES

from mlxsched.data import chat as chat_module
from mlxsched.data.chat import ChatTemplate
from mlxsched.data.encode import Encoder
from mlxsched.data.messages import Messages
from mlxsched.data.problems import RowProblem
from mlxsched.data.turns import Turns, find_turns

_HEAD = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + (m.content or '') }}"
_END = "{{- '<|im_end|>\n' }}{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
# Templates that look at more than the message they write, each in its own way.
LOOKING = {
    "last": _HEAD + "{% if loop.last %}!{% endif %}" + _END,
    "last, for tools": _HEAD + "{% if m.role == 'tool' and loop.last %}!{% endif %}" + _END,
    "next": _HEAD + "{% if messages[loop.index0 + 1] %}+{% endif %}" + _END,
    "nextitem": _HEAD + "{{ loop.nextitem.role if loop.nextitem is defined }}" + _END,
    "before": _HEAD + "{{ messages[loop.index0 - 1].role }}" + _END,
    "previtem": _HEAD + "{{ loop.previtem.role if loop.previtem is defined }}" + _END,
    "length": "{{ messages | length }}" + _HEAD + _END,
    "reversed": "{{ messages[::-1][0].role }}" + _HEAD + _END,
    "final": "{{ messages[-1].role }}" + _HEAD + _END,
    "members": _HEAD + "{% if 'tool' in messages | map(attribute='role') %}#{% endif %}" + _END,
    "a list": _HEAD.replace("in messages", "in messages + []") + _END,
    "printed": "{{ messages }}" + _HEAD + _END,
    "compared": "{% if messages == [] %}?{% endif %}" + _HEAD + _END,
    "in JSON": "{{ messages | tojson }}" + _HEAD + _END,
    "numbers": "{%- for i in range(3) %}{{ messages[i].content if messages[i] }}{% endfor %}" + _HEAD + _END,
    "by number": "{% for i in range(messages | length) %}{{ messages[i].content }}|{% endfor %}",
    "all but the first": "[{{ messages[0].content }}]" + _HEAD.replace("in messages", "in messages[1:]") + _END,
    "only some": _HEAD.replace("in messages", "in messages if m.role != 'system'") + _END,
    "skipping": _HEAD + "{% if m.role == 'system' %}{% continue %}{% endif %}" + _END,
    "stopping": _HEAD + "{% if m.role == 'tool' %}{% break %}{% endif %}" + _END,
    "a state": "{% set ns = namespace(n=0) %}" + _HEAD + "{% set ns.n = ns.n + 1 %}{{ ns.n }}" + _END,
    "a state at the end": "{% set ns = namespace(n=0) %}" + _HEAD + "{% set ns.n = ns.n + 1 %}" + _END + "{{ ns.n }}",
    "a tail about messages": _HEAD + _END + "{{ messages[-1].role }}",
    "a prompt in the loop": _HEAD + "{{ '*' if add_generation_prompt }}" + _END,
    "another name": _HEAD + "{% set m = messages[0] %}" + _END,
    "no loop": "{{ messages[0].content }}{{ messages[1].content }}",
    "pieces": "{% for m in [messages[0], messages[0], 'x'] %}{{ m }}{% endfor %}",
    "twice": _HEAD + "{% endfor %}" + _HEAD + _END,
    "tools at the top": "{% if tools %}{{ tools | tojson }}{% endif %}" + _HEAD + _END,
    "calls": _HEAD + "{% for c in m.tool_calls or [] %}{{ c | tojson }}{% endfor %}" + _END,
    "thinking": _HEAD + "{{ m.reasoning_content }}{{ m.thinking }}" + _END,
}  # fmt: skip
FOUND = {
    name: template for name, template in vars(chat_templates).items() if name.isupper() and name != "ENDLESS"
}
TEMPLATES = {**{name: family[0] for name, family in FAMILIES.items()}, **FOUND, **LOOKING}

said = st.sampled_from(
    [
        "",
        "a",
        "hello there",
        " two\nlines ",
        "<think>\nhm\n</think>\n\nyes",
        "<|im_end|>",
        "é 🙂",
        "assistant",
    ]
)
calls = st.just([{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}])
other = st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "tool"]), "content": said})
answer = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": said},
    optional={
        "tool_calls": calls,
        "weight": st.sampled_from([0, 1]),
        "name": st.none(),
        "reasoning_content": said,
    },
)
chats = st.lists(st.one_of(other, answer, answer), min_size=1, max_size=6)
tools = st.sampled_from(
    [None, None, [{"type": "function", "function": {"name": "f", "parameters": {"x": None}}}]]
)


@pytest.fixture
def pair(
    with_template: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[ChatTemplate]]:
    """A template that trusts its own renderings from the first one on, and one that leaves all to transformers."""
    monkeypatch.setattr(chat_module, "_COMPARED", 0)

    def make(source: str) -> list[ChatTemplate]:
        made = [Encoder(with_template(source), True).template() for _ in range(2)]
        assert made[0] is not None and made[1] is not None
        made[1]._compiled = None
        return made

    return make


def _outcome(template: ChatTemplate, messages: Messages, tools: Any) -> Turns | str:
    try:
        return find_turns(template, messages, tools)
    except RowProblem as problem:
        return problem.what


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_turns_and_refusals_are_those_of_transformers(name: str, pair: Any) -> None:
    ours, theirs = pair(TEMPLATES[name])

    @settings(max_examples=6, deadline=None)
    @given(messages=chats, tools=tools)
    def same(messages: Messages, tools: Any) -> None:
        assert _outcome(ours, messages, tools) == _outcome(theirs, messages, tools)

    same()


CHAT = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user", "assistant")]


@pytest.mark.parametrize(
    "name",
    [
        "chatml",
        "llama3",
        "GLM",
        "NEMOTRON",
        "last, for tools",
        "previtem",
        "a state",
        "tools at the top",
    ],
)
def test_all_beginnings_are_known_from_one_rendering(name: str, pair: Any) -> None:
    template, reference = pair(TEMPLATES[name])
    rendering = template.render_with_cuts(CHAT)
    assert list(rendering.cuts) == [1, 2, 3, 4, 5]
    for count in rendering.cuts:
        for prompt in (False, True):
            expected = reference.render(CHAT[:count], prompt=prompt)
            assert rendering.beginning(count, prompt=prompt) == expected


@pytest.mark.parametrize(
    "name", ["last", "next", "nextitem", "twice", "length", "reversed", "final", "members", "a state at the end",
             "a tail about messages", "a prompt in the loop", "pieces", "by number", "QWEN3", "GPT_OSS", "OLMO"]
)  # fmt: skip
def test_a_template_that_looks_ahead_has_no_known_beginnings(name: str, pair: Any) -> None:
    template, _ = pair(TEMPLATES[name])
    assert not set(template.render_with_cuts(CHAT).cuts) & {1, 2, 3}


def test_a_chat_is_rendered_once(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    template, _ = pair(TEMPLATES["chatml"])
    find_turns(template, CHAT)
    runs: list[int] = []
    run = template._compiled._run
    monkeypatch.setattr(
        template._compiled, "_run", lambda *args, **more: runs.append(1) or run(*args, **more)
    )
    assert len(find_turns(template, CHAT).spans) == 2
    assert len(runs) == 1


def test_a_rendering_that_differs_is_not_trusted(with_template: Callable[[str], Any]) -> None:
    tokenizer = with_template(TEMPLATES["chatml"])
    template = Encoder(tokenizer, True).template()
    assert template is not None
    tokenizer._tokenizer.chat_template = TEMPLATES["llama3"]
    assert template.render(CHAT).startswith("<|endoftext|><|start_header_id|>")
    assert template._compiled is None
