"""``tracking.json``: kept, merged, and read with suspicion."""

from __future__ import annotations

import json

import pytest

from mlxsched.errors import UserError
from mlxsched.tracking.state import FILE, read_ids, write_id


def test_ids_are_merged(tmp_path):
    assert read_ids(tmp_path) == {}
    write_id(tmp_path, "wandb", "abc")
    write_id(tmp_path, "mlflow", "def")
    write_id(tmp_path, "wandb", "xyz")
    assert read_ids(tmp_path) == {"wandb": "xyz", "mlflow": "def"}


def test_what_is_not_an_id_is_ignored(tmp_path):
    values = {"a": "../../x", "b": 5, "c": "x" * 200, "d": "good-1.2_3", "e": "", "f": "a b"}
    (tmp_path / FILE).write_text(json.dumps({"ids": values}))
    assert read_ids(tmp_path) == {"d": "good-1.2_3"}
    (tmp_path / FILE).write_text('{"ids": [1]}')
    assert read_ids(tmp_path) == {}


def test_damage_and_links_are_refused(tmp_path):
    (tmp_path / FILE).write_text("{")
    with pytest.raises(UserError):
        read_ids(tmp_path)
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).symlink_to("/etc/hostname")
    with pytest.raises(UserError):
        read_ids(tmp_path)
