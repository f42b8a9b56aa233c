"""The written file: valid YAML whatever the source holds, and it loads."""

from __future__ import annotations

import json

import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlxsched.config import load_config
from mlxsched.config.importers.draft import Entry, Leftover, shown
from mlxsched.config.importers.result import ImportedConfig

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(value=st.text(), note=st.text(), left=VALUES, name=st.text())
def test_no_text_of_a_source_gets_out_of_its_comment(value, note, left, name):
    result = ImportedConfig(
        [f"{name}.json"],
        [Entry("model", value, f"from {name}:1 x", note), Entry("lora_parameters.rank", 4, "y")],
        [Leftover(name, left, f"{name}:2", note)],
        [name],
    )
    assert yaml.safe_load(result.to_yaml()) == {"model": value, "lora_parameters": {"rank": 4}}


@given(VALUES)
def test_values_are_shown_on_one_short_line(value):
    text = shown(value)
    assert len(text) <= 60 and text.isprintable()


def test_a_written_file_loads_and_marks_are_comments(tmp_path):
    entries = [
        Entry("model", "a: b # c", "from x:1 m"),
        Entry("learning_rate", 5e-05, "from x:2 lr"),
        Entry("optimizer_config", {"adamw": {"betas": [0.9, 0.95]}}, "from x:3 wd"),
    ]
    path = tmp_path / "ours.yaml"
    path.write_text(ImportedConfig(["x"], entries).to_yaml())
    config = load_config(file=path).config
    assert (config.model, config.learning_rate) == ("a: b # c", 5e-05)
    assert config.optimizer_config == {"adamw": {"betas": [0.9, 0.95]}}


def test_json_holds_everything():
    result = ImportedConfig(
        ["x"], [Entry("seed", 3, "from x:1 seed")], [Leftover("a", 1, "x:2", "why")], ["b"]
    )
    data = json.loads(json.dumps(result.to_dict()))
    assert data["config"] == {"seed": 3}
    assert data["no_counterpart"] == [{"key": "a", "value": 1, "where": "x:2", "reason": "why"}]
    assert data["without_effect"] == ["b"]
