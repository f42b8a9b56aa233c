"""Configurations of other trainers, converted into ours.

`import_config` reads a dump of transformers' ``TrainingArguments`` or TRL's ``SFTConfig``, a PEFT
``adapter_config.json``, an axolotl YAML or a LLaMA-Factory YAML. Each key of the file ends up in one of three
places: converted (`Entry`), listed as without a counterpart (`Leftover`), or named among those that are off or at
their default. Nothing is dropped silently.
"""

from __future__ import annotations

from mlxsched.config.importers.convert import import_config
from mlxsched.config.importers.draft import Entry, Leftover
from mlxsched.config.importers.result import ImportedConfig
from mlxsched.config.importers.tools import TOOLS

__all__ = ["TOOLS", "Entry", "ImportedConfig", "Leftover", "import_config"]
