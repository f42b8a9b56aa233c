"""A chat template is somebody else's program: it is limited in time and size, and rows don't depend on the date."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chat_templates as templates
import pytest
from data_helpers import chat

from mlxsched.data import load_dataset
from mlxsched.data.chat import ChatTemplate
from mlxsched.data.problems import RowProblem
from mlxsched.errors import DataError

Scored = Callable[..., list[str]]
WithTemplate = Callable[[str], Any]
MESSAGES = chat("hello", "there")["messages"]


def test_an_endless_template_is_stopped(
    with_template: WithTemplate, scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlxsched.data.chat.SECONDS", 0.05)
    with pytest.raises(DataError, match=r"train\.jsonl:1: the chat template did not end within"):
        scored(with_template(templates.ENDLESS), chat("a", "b"))


def test_a_template_that_writes_too_much_is_refused(
    with_template: WithTemplate, scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlxsched.data.chat.MAX_CHARACTERS", 1000)
    with pytest.raises(DataError, match=r"makes more than 1,000 characters"):
        scored(with_template("{% for a in range(2000) %}x{% endfor %}"), chat("a", "b"))


def test_rows_do_not_depend_on_the_date_if_the_template_takes_one(with_template: WithTemplate) -> None:
    template = (
        "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date_string }}"
    )
    found = ChatTemplate(with_template(template), [])
    assert found.render(MESSAGES) == "26 Jul 2024"
    assert not found.writes_today


def test_a_template_that_writes_the_date_is_noted(
    with_template: WithTemplate, write: Callable[..., Any]
) -> None:
    template = "{{ strftime_now('%Y') }}" + templates.CALLS_AS_JSON
    path = write("train.jsonl", [chat("a", "b")]).parent
    notes = load_dataset(str(path), with_template(template)).notes
    assert any("writes today's date into each row" in note for note in notes)


def test_what_a_template_refuses_is_a_problem_of_the_row(with_template: WithTemplate) -> None:
    found = ChatTemplate(with_template("{{ raise_exception('no\\x1b[31m') }}"), [])
    with pytest.raises(RowProblem, match=r"the chat template refuses it: no\\x1b\[31m"):
        found.render(MESSAGES)
    assert found.attempt(MESSAGES) is None
