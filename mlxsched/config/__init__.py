"""Typed run configuration: schema, YAML with line numbers, presets, precedence."""

from __future__ import annotations

from mlxsched.config.catalog import Preset, list_presets
from mlxsched.config.load import LoadedConfig, load_config
from mlxsched.config.presets import find_preset
from mlxsched.config.schema import RunConfig, json_schema

__all__ = ["LoadedConfig", "Preset", "RunConfig", "find_preset", "json_schema", "list_presets", "load_config"]
