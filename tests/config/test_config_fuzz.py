"""Whatever stands in a config file, it loads or gets a ConfigError with a place: nothing else escapes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlxsched.config import RunConfig, load_config
from mlxsched.errors import ConfigError, UsageError

EXAMPLES = int(os.environ.get("MLXSCHED_FUZZ", "100"))

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["6GB", "10m", "20%", "linear", "-1", "1e400", "9" * 400]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from([*RunConfig.model_fields, "preset"]) | st.text(max_size=6)
lora = st.dictionaries(st.sampled_from(["rank", "scale", "keys", "dropout", "alpha"]), values, max_size=3)


def load(content: bytes) -> str:
    """Load a file of this content; return the complaint, or an empty string."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "run.yaml"
        path.write_bytes(content)
        try:
            config = load_config(file=path).config
        except (ConfigError, UsageError) as error:
            return str(error)
    assert RunConfig(**config.to_dict()) == config
    return ""


@settings(max_examples=EXAMPLES, deadline=None)
@example({"lora_parameters": {"rank": "\x00"}})  # a complaint about a nested block as a whole
@given(st.dictionaries(keys, values | lora, max_size=5))
def test_any_mapping_loads_or_is_refused_with_a_place(mapping):
    complaint = load(yaml.safe_dump(mapping).encode())
    assert not complaint or "run.yaml" in complaint or "No such preset" in complaint


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.text(alphabet=" \n\t:-[]{}&*!|>'\"#%@`,?ab1.e~", max_size=40) | st.binary(max_size=40))
def test_any_bytes_load_or_are_refused_with_a_place(content):
    complaint = load(content if isinstance(content, bytes) else content.encode())
    assert not complaint or "run.yaml" in complaint or "No such preset" in complaint
