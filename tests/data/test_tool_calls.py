"""Every tool call and tool result of a row is in the text that the model is trained on, or the row is reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import chat_templates as templates
import pytest

from mlxsched.data import load_dataset
from mlxsched.errors import DataError

END = "<|im_end|>"
Scored = Callable[..., list[str]]
WithTemplate = Callable[[str], Any]
TOOLS = [{"type": "function", "function": {"name": "lookup", "parameters": {}}}]


def row(arguments: Any, **more: Any) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "lookup", "arguments": arguments}}
    return {
        "messages": [
            {"role": "user", "content": "Look up Paris"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "4"},
            {"role": "assistant", "content": "It is 4."},
        ],
        **more,
    }


@pytest.mark.parametrize("as_string", [True, False])
@pytest.mark.parametrize(
    ("template", "call"),
    [
        ("CALLS_OF_MAPPINGS", "<call lookup>city=Paris;n=1;</call>"),
        ("CALLS_OF_STRINGS", 'lookup {"city": "Paris", "n": 1}'),
        ("CALLS_AS_JSON", 'lookup {"city": "Paris", "n": 1}'),
        ("CALLS_AS_PRINTED", 'lookup {"city": "Paris", "n": 1}'),
    ],
)
def test_arguments_take_the_form_that_the_template_wants(
    template: str, call: str, as_string: bool, with_template: WithTemplate, scored: Scored
) -> None:
    arguments: Any = {"city": "Paris", "n": 1}
    record = row(json.dumps(arguments) if as_string else arguments)
    found = scored(with_template(getattr(templates, template)), record)
    assert found == [f"{call}{END}", f"It is 4.{END}"]


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("WITHOUT_CALLS", 'leaves out the tool call "lookup"'),
        ("WITHOUT_RESULTS", "leaves out the tool's result in message 3"),
        ("WITHOUT_ARGUMENTS", 'leaves out arguments of the tool call "lookup"'),
    ],
)
def test_a_template_that_drops_calls_or_results_is_reported(
    template: str, what: str, with_template: WithTemplate, scored: Scored
) -> None:
    # The definition of the tool holds its name, and "4" is in the answer: neither must be taken for the real thing.
    with pytest.raises(DataError, match=rf"train\.jsonl:1: the chat template {what}"):
        scored(with_template(getattr(templates, template)), row('{"city": "Paris"}', tools=TOOLS))


def test_arguments_that_are_not_json_stay_a_string(with_template: WithTemplate, scored: Scored) -> None:
    found = scored(with_template(templates.CALLS_OF_STRINGS), row("city: Paris"))
    assert found[0] == f"lookup city: Paris{END}"
    with pytest.raises(DataError, match="the chat template refuses it"):
        scored(with_template(templates.CALLS_OF_MAPPINGS), row("city: Paris"))


def test_openais_older_form_of_calls(with_template: WithTemplate, scored: Scored) -> None:
    record = row('{"city": "Paris"}')
    asked, called, result, answer = record["messages"]
    call = called["tool_calls"][0]["function"]
    older_call = {"role": "assistant", "content": None, "function_call": call}
    older = [asked, older_call, {**result, "role": "function"}, answer]
    found = scored(with_template(templates.CALLS_AS_JSON), {"messages": older})
    assert found == scored(with_template(templates.CALLS_AS_JSON), record)


def test_tools_that_the_template_leaves_out_are_noted(
    with_template: WithTemplate, write: Callable[..., Any]
) -> None:
    path = str(write("train.jsonl", [row({"city": "Paris"}, tools=TOOLS)]).parent)
    without = load_dataset(path, with_template(templates.CALLS_AS_JSON))
    assert without.counts["train"].ignored_tools == 1
    assert any("leaves out the `tools` of 1 row" in note for note in without.notes)
    with_tools = load_dataset(path, with_template(templates.TOOLS_AT_THE_TOP + templates.CALLS_AS_JSON))
    assert with_tools.counts["train"].ignored_tools == 0


@pytest.mark.parametrize("call", [{}, {"function": {}}, {"function": {"name": 3}}, {"function": "lookup"}])
def test_a_call_without_a_name_is_a_problem_of_the_row(call: Any, tokenizer: Any, scored: Scored) -> None:
    record = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
    }
    with pytest.raises(DataError, match=r"message 2: a tool call needs a function with a \"name\""):
        scored(tokenizer, record)
