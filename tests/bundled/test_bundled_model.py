"""The bundled model: a Llama that mlx-lm loads as it is, small, knowing formulas but not how to answer requests."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mlxsched.bundled import data_path, model_path

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def loaded():
    from mlxsched.model.load import load_model

    return load_model("tiny")


@pytest.fixture(scope="module")
def test_rows() -> list[list[dict[str, str]]]:
    lines = (data_path("excel") / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines]


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def test_model_and_data_are_within_five_megabytes():
    assert _size(model_path("tiny")) + _size(data_path("excel")) <= 5 * MEGABYTE


def test_it_is_a_float32_llama(loaded):
    import mlx.core as mx
    from mlx.utils import tree_flatten

    assert loaded.config["model_type"] == "llama"
    assert {value.dtype for _, value in tree_flatten(loaded.model.parameters())} == {mx.float32}
    assert loaded.config["vocab_size"] == len(loaded.tokenizer.get_vocab())


@pytest.mark.parametrize(
    "text", ["=SUM('Q1 Data'!A1:A10)", "naïve café, 日本語, 🙂", "a\n\tb  c", "<s> is not special?"]
)
def test_any_text_survives_the_tokenizer(loaded, text):
    ids = loaded.tokenizer.encode(text, add_special_tokens=False)
    assert loaded.tokenizer.decode(ids, skip_special_tokens=False) == text


def test_a_name_is_the_same_tokens_in_request_and_formula(loaded):
    def tokens(text: str) -> list[int]:
        return list(loaded.tokenizer.encode(text, add_special_tokens=False))

    for name in ("B12", "North", "AVERAGE"):
        for around in (f"the {name} of", f"({name})", f'"{name}"', f"{name},"):
            joined = tokens(around)
            part = tokens(name)
            assert any(joined[i : i + len(part)] == part for i in range(len(joined))), around


def test_the_chat_template_ends_turns_and_opens_the_answer(loaded):
    tokenizer = loaded.tokenizer
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    whole = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    start = tokenizer.apply_chat_template(
        turns[:1], tokenize=True, return_dict=False, add_generation_prompt=True
    )
    assert whole[: len(start)] == start
    assert whole[0] == tokenizer.bos_token_id and whole[-1] == tokenizer.eos_token_id
    assert tokenizer.apply_chat_template(
        [{"role": "system", "content": "s"}, *turns], tokenize=False
    ).startswith("<s><|system|>s<|end|><|user|>x<|end|><|assistant|>y")


def _loss(loaded, text: str, start: str = "") -> float:
    """Mean loss per token of what follows `start`."""
    import mlx.core as mx
    from mlx import nn

    tokenizer = loaded.tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False)
    skip = len(tokenizer.encode(start, add_special_tokens=False)) if start else 1
    x = mx.array(ids)[None]
    losses = nn.losses.cross_entropy(loaded.model(x[:, :-1]), x[:, 1:])
    return float(losses[0, skip - 1 :].mean().item())


def test_it_knows_formulas(loaded, test_rows):
    """A formula that it never saw is far likelier than chance, and likelier than its letters shuffled."""
    rng = np.random.default_rng(0)
    plain, shuffled = [], []
    for row in test_rows[:40]:
        formula = row[1]["content"]
        plain.append(_loss(loaded, f"<s>{formula}<|end|>"))
        shuffled.append(_loss(loaded, "<s>" + "".join(rng.permutation(list(formula))) + "<|end|>"))
    assert np.mean(plain) < 0.3 * math.log(loaded.config["vocab_size"])
    assert np.mean(plain) < 0.6 * np.mean(shuffled)


def test_it_does_not_answer_requests(loaded, test_rows):
    """Not one of the test answers comes out of the base model by greedy decoding with mlx-lm."""
    import mlx_lm

    right = 0
    for row in test_rows[:25]:
        prompt = loaded.tokenizer.apply_chat_template(row[:1], tokenize=False, add_generation_prompt=True)
        answer = mlx_lm.generate(loaded.model, loaded.tokenizer, prompt=prompt, max_tokens=60)
        right += answer == row[1]["content"]
    assert right == 0
