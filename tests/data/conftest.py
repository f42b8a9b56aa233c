"""Small real tokenizers: byte-level BPE, with the chat templates of well-known model families."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `chat_templates`

from tokenizer_families import FAMILIES

_MARKS = ["<|im_start|>", "<|start_header_id|>", "<|end_header_id|>", "[INST]", "[/INST]", "<start_of_turn>"]
_CORPUS = [
    "the sum of the values in the column",
    "What is two and two?",
    "=SUM(A1:A10)",
    "hello there, how are you",
    "I am fine\n\nthank you",
    "system user assistant model",
    "table: columns: Q: A: SELECT FROM WHERE",
]


def build_tokenizer(family: str | None, *, byte_level: bool = True) -> Any:
    """A tokenizer of about 350 tokens with the template of ``family`` (None: without one).

    Byte-level as GPT-2's, or else with spaces as marks and a mark put before a text, as Llama 2's.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    template, bos, eos = FAMILIES[family or "chatml"]
    backend = Tokenizer(models.BPE())
    parts: Any = (
        pre_tokenizers.ByteLevel(add_prefix_space=False) if byte_level else pre_tokenizers.Metaspace()
    )
    backend.pre_tokenizer = parts
    backend.decoder = decoders.ByteLevel() if byte_level else decoders.Metaspace()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else sorted({*"".join(_CORPUS), *"é\n:19"})
    special = list(dict.fromkeys([bos, eos, *_MARKS]))
    trainer = trainers.BpeTrainer(
        vocab_size=350, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    backend.train_from_iterator(_CORPUS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos)
    if family:
        fast.chat_template = template
    return fast


def wrap(fast: Any) -> Any:
    """As mlx-lm hands a tokenizer out."""
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    return TokenizerWrapper(fast)


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, Any]:
    """One wrapped tokenizer a family; "plain" has no chat template."""
    made = {family: wrap(build_tokenizer(family)) for family in FAMILIES}
    return {**made, "plain": wrap(build_tokenizer(None))}


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """`build_tokenizer`, for tests that need one of transformers' own, or one with marks for spaces."""
    return build_tokenizer


@pytest.fixture
def tokenizer(tokenizers: dict[str, Any]) -> Any:
    """The one that most tests use: ChatML."""
    return tokenizers["chatml"]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """``write("train.jsonl", [record or raw line, ...])`` writes a file below the temporary directory."""

    def write_rows(name: str, rows: list[Any]) -> Path:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return write_rows


@pytest.fixture(scope="session")
def with_template(tokenizers: dict[str, Any]) -> Callable[[str], Any]:
    """The ChatML tokenizer, wrapped, with another chat template."""

    def make(template: str) -> Any:
        fast = copy.deepcopy(tokenizers["chatml"]._tokenizer)
        fast.chat_template = template
        return wrap(fast)

    return make


@pytest.fixture
def scored(write: Callable[..., Path]) -> Callable[..., list[str]]:
    """``scored(tokenizer, record, mask_prompt=..)``: the runs of targets of the one row, as text."""

    def runs(tokenizer: Any, record: Any, **options: Any) -> list[str]:
        from mlxsched.data import DataOptions, load_dataset

        path = write("scored/train.jsonl", [record])
        rows = load_dataset(str(path.parent), tokenizer, DataOptions(**options)).splits["train"]
        found: list[list[int]] = []
        previous = False
        for token, target in zip(rows[0].tokens.tolist(), rows[0].targets.tolist(), strict=True):
            if target and not previous:
                found.append([])
            if target:
                found[-1].append(token)
            previous = target
        return [tokenizer.decode(run) for run in found]

    return runs
