"""Chats that are filled into a layout have the same text and turns as those that the template renders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_compiled_template import _END, _HEAD, TEMPLATES
from tokenizer_families import FAMILIES

from mlxsched.data import chat as chat_module
from mlxsched.data import layouts as layouts_module
from mlxsched.data.encode import Encoder
from mlxsched.data.holes import Hole, LookedInside, Trace
from mlxsched.data.layouts import Layouts, find_layout
from mlxsched.data.messages import Messages
from mlxsched.data.problems import RowProblem
from mlxsched.data.turns import find_turns

Make = Callable[[str], Any]
SAID = [
    "a", " a ", "two\nlines\n", "<think>\nhm\n</think>\n\nyes", "<|im_end|>", "<|im_end|", "|im_end|>", "<", "\n", "é 🙂",
    "assistant", "<|im_start|>assistant\n", "[INST]", "{{ x }}", "&<>'\"", "<|eot_id|>", "%s", "</s>",
]  # fmt: skip
said = st.lists(st.sampled_from(SAID), min_size=1, max_size=3).map("".join)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "assistant"]), "content": said}
)
ANSWERED = ("system", "user", "assistant", "user", "assistant")
# Each looks into a content in another way, mostly in one that calls no method of it.
LOOKING_INSIDE = [
    "{{ 'x' if 'a' in m.content }}", "{{ 'x' if m.content in 'abc' }}", "{{ m.content | length }}", "{{ m.content | upper }}",
    "{{ m.content == 'a' }}", "{{ m.content[0] }}", "{{ m.content[:1] }}", "{{ m.content | tojson }}", "{{ m | tojson }}",
    "{{ m }}", "{{ [m.content] }}", "{{ '%s' % m.content }}", "{{ '%5s' | format(m.content) }}", "{{ '{}'.format(m.content) }}",
    "{{ m.content.format() }}", "{{ m.content * 2 }}", "{% for c in m.content %}{{ c }}.{% endfor %}", "{{ m.content | trim('x') }}",
    "{{ m.content.lstrip() }}", "{{ (m.content + 'x') | trim }}", "{{ 'abc'.startswith(m.content) }}", "{{ 'a'.join([m.content]) }}",
    "{% set x = m.content ~ '' %}{{ x | upper }}", "{% set x %}{{ m.content }}{% endset %}{{ x | upper }}", "{{ m.content is in 'abc' }}",
    "{% macro f(x) %}{{ x }}{% endmacro %}{{ f(m.content) | upper }}", "{{ {'a': 1}[m.content] }}", "{{ m.content < 'b' }}",
    "{{ messages | map(attribute='content') | join }}", "{{ m.content is lower }}", "{{ m.values() | list }}", "{{ m.content | int }}",
    "{% filter upper %}{{ m.content }}{% endfilter %}", "{{ 'x' if ('a' ~ m.content) in 'abc' }}", "{{ m.content is eq('a') }}",
    "{% for key in m %}{{ key }}{% endfor %}", "{% for item in m.items() %}{% endfor %}",
    "{{ (m.content or 'x') | reverse }}", "{{ m.items() | first }}", "{% if 'ab'[m.content] is defined %}{% endif %}",
]  # fmt: skip


@pytest.fixture
def template(with_template: Make, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A chat template whose renderings and layouts count as proved."""
    monkeypatch.setattr(layouts_module, "COMPARED", 0)
    monkeypatch.setattr(chat_module, "_COMPARED", 0)
    return lambda source: Encoder(with_template(source), True).template()


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_and_turns_are_those_of_the_template(name: str, template: Make) -> None:
    chat = template(TEMPLATES[name])
    layouts = Layouts(chat)

    @settings(max_examples=12, deadline=None)
    @given(st.lists(messages, min_size=1, max_size=5))
    def same(found: Messages) -> None:
        filled = layouts.turns(found)
        if filled is not None:
            assert filled == find_turns(chat, found)

    same()


@pytest.mark.parametrize("name", [*FAMILIES, "GLM", "QWEN3", "a state", "calls", "last", "before"])
def test_which_templates_have_layouts(name: str, template: Make) -> None:
    layout = find_layout(template(TEMPLATES[name]), ANSWERED[1:])
    assert (layout is None) == (name in ("QWEN3", "last", "before"))


@pytest.mark.parametrize("part", LOOKING_INSIDE)
def test_a_template_that_looks_into_a_content_has_no_layout(part: str, template: Make) -> None:
    plain = _HEAD.replace(" (m.content or '')", "''") + "{{ m.content }}"
    assert find_layout(template(plain + _END), ANSWERED) is not None
    assert find_layout(template(plain + part + _END), ANSWERED) is None


def test_contents_that_a_layout_cannot_take(template: Make) -> None:
    layouts = Layouts(template(TEMPLATES["chatml"]))
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    assert layouts.turns(chat) is not None
    others: list[dict[str, Any]] = [
        {"role": "user", "content": ""},
        {"role": "user", "content": " \n"},
        {"role": "user", "content": "a<|im_end|>"},
        {"role": "user", "content": "a", "name": None},
        {"role": "tool", "content": "4"},
    ]
    for other in others:
        assert layouts.turns([other, *chat]) is None
    unusual: list[Any] = [
        [],
        None,
        "text",
        {},
        [None],
        ["ab"],
        [["a", "b"]],
        [{"role": "user", "content": 3}],
        [{"a": 1, "b": 2}],
    ]
    unusual += [
        [{"role": ["user"], "content": "a"}],
        [{"role": "narrator", "content": "a"}],
        [{"role": "user"}],
    ]
    for value in unusual:
        assert layouts.turns(value) is None


def test_a_template_has_no_layout_before_its_renderings_are_proved(with_template: Make) -> None:
    chat = Encoder(with_template(TEMPLATES["chatml"]), True).template()
    assert chat is not None
    found = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    layouts = Layouts(chat)
    for _ in range(chat_module._COMPARED):
        assert layouts.turns(found) is None
        turns = find_turns(chat, found)
    assert layouts.turns(found) == turns


def test_a_layout_that_differs_from_the_template_is_not_used(
    template: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = find_layout
    monkeypatch.setattr(layouts_module, "COMPARED", 1)
    monkeypatch.setattr(
        layouts_module,
        "find_layout",
        lambda *args: replace(
            found := right(*args),
            outline=replace(found.outline, parts=("!", *found.outline.parts[1:])),
        ),
    )
    chat = template(TEMPLATES["chatml"])
    found = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    layouts = Layouts(chat)
    assert layouts.turns(found) is None and layouts.turns(found) is None
    monkeypatch.setattr(layouts_module, "find_layout", right)
    assert layouts.turns(found * 2) is None  # nor are the others
    assert Layouts(chat).turns(found) == find_turns(chat, found)


def test_the_number_of_layouts_is_limited(template: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts_module, "MOST", 1)
    layouts = Layouts(template(TEMPLATES["chatml"]))
    found = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    assert layouts.turns(found) is not None
    assert layouts.turns(found * 2) is None


def test_a_layout_may_leave_out_contents_of_known_roles_only(template: Make) -> None:
    source = TEMPLATES["chatml"].replace("{{ m.content }}", "{{ m.content if m.role != 'system' }}")
    assert find_layout(template(source), ANSWERED) is None
    assert find_layout(template(source), ANSWERED[1:]) is not None


@pytest.mark.parametrize(
    "name", sorted(name for name in dir(str) if not name.startswith("_") and name != "strip")
)
def test_no_method_of_a_hole_reveals_its_content(name: str) -> None:
    with pytest.raises(LookedInside):
        getattr(Hole("x"), name)("a")


def test_operations_on_holes() -> None:
    hole = Hole("x")
    for look in (
        lambda: hole == "x", lambda: hole != "x", lambda: hole < "x", lambda: hash(hole), lambda: len(hole), lambda: hole[0],
        lambda: list(hole), lambda: "x" in hole, lambda: hole in ["x"], lambda: hole * 2, lambda: 2 * hole,
        lambda: "%s" % hole,  # noqa: UP031
        lambda: hole % 1, lambda: f"{hole}", lambda: repr(hole), lambda: hole.strip("x"),
        lambda: {"x": 1}[hole],
    ):  # fmt: skip
        with pytest.raises(LookedInside):
            look()
    assert type(str(hole)) is str
    assert hole != None and (hole == None) is False  # noqa: E711 - as templates write it
    assert (hole == 3) is (hole == False) is False  # noqa: E712
    (content,) = Trace(None, 1).holes
    assert type(content + "y") is type("y" + content) is type(content + content) is Hole
    assert content + "" is content and content and content.strip() and content + "y"  # no content is blank
    assert not issubclass(LookedInside, RowProblem)
