"""Make the bundled model: a byte-level BPE tokenizer and a small Llama, trained from nothing on generated text.

    python scripts/make_tiny_model.py            # writes mlxsched/bundled/tiny, in mlx-lm's format

What it is trained on is in scripts/excel/corpus.py; docs/bundled.md has the durations and the losses. The same
seed on the same machine and versions gives the same weights.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

if sys.platform == "linux":  # MLX's own BLAS there is about fifty times slower; see docs/bundled.md
    try:
        ctypes.CDLL("libopenblas.so.0", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        print("note: no OpenBLAS found, this will take hours; install libopenblas0-pthread", file=sys.stderr)

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from excel.corpus import Document, documents
from make_excel_data import make
from mlx import nn
from mlx.utils import tree_flatten

SEED = 7
SPECIAL = ("<pad>", "<s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# Digits one by one, a space joined to the lower-case word behind it only: a name that is copied from a request into
# a formula (B12, North) is then the same tokens in both.
PIECES = r"\d| ?[a-z']+|[A-Z][a-z]+|[A-Z]{2,}|[A-Z]|\s|[^\sA-Za-z\d]"
VOCABULARY = 1280
CONFIG: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 128, "num_hidden_layers": 4,
    "intermediate_size": 352, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 32,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 1024, "tie_word_embeddings": True,
    "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "torch_dtype": "float32",
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 5,
}  # fmt: skip
WIDTH, ROWS = 128, 8  # tokens in a row, rows in an update
OUT = Path(__file__).resolve().parent.parent / "mlxsched" / "bundled" / "tiny"


def avoided() -> frozenset[str]:
    """Every request and every formula of the fine-tuning set: none of them is pretrained on."""
    return frozenset(text for rows in make().values() for row in rows for text in (row.text, row.formula))


def make_tokenizer(texts: Iterator[str]) -> Any:
    """Train the BPE and wrap it for transformers, with the chat template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECES), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL),
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="<|end|>", pad_token="<pad>", chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False, model_max_length=CONFIG["max_position_embeddings"],
    )  # fmt: skip


def encode(tokenizer: Any, document: Document) -> tuple[list[int], int]:
    """The tokens of a document, in the chat format where it has a prompt, and how many of them are not learned."""
    start = f"<s><|user|>{document.prompt}<|end|><|assistant|>" if document.prompt else "<s>"
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in (start, document.text + "<|end|>")]
    return ids[0] + ids[1], len(ids[0])


def batches(tokenizer: Any, seed: int, avoid: frozenset[str]) -> Iterator[tuple[mx.array, mx.array]]:
    """Documents one behind the other, cut into rows of WIDTH + 1 tokens; the weights are 0 where nothing is learned."""
    tokens: list[int] = []
    weights: list[float] = []
    size = ROWS * (WIDTH + 1)
    for document in documents(seed, avoid):
        ids, skip = encode(tokenizer, document)
        tokens += ids
        weights += [0.0] * skip + [1.0] * (len(ids) - skip)
        while len(tokens) >= size:
            batch = np.array(tokens[:size], dtype=np.int32).reshape(ROWS, -1)
            weight = np.array(weights[:size], dtype=np.float32).reshape(ROWS, -1)[:, 1:]
            yield mx.array(batch), mx.array(weight)
            tokens, weights = tokens[size:], weights[size:]


def train(model: Any, rows: Iterator[tuple[mx.array, mx.array]], updates: int, peak: float) -> float:
    """Corrected AdamW, warmup of a twentieth, linear to zero; returns the mean loss of the last hundred updates."""
    warmup = updates // 20
    rate = optim.join_schedules(
        [optim.linear_schedule(0.0, peak, warmup), optim.linear_schedule(peak, 0.0, updates - warmup)],
        [warmup],
    )
    optimizer = optim.AdamW(rate, betas=[0.9, 0.98], weight_decay=0.01, bias_correction=True)
    state = [model.state, optimizer.state]

    def loss_of(batch: mx.array, weights: mx.array) -> mx.array:
        losses = nn.losses.cross_entropy(model(batch[:, :-1]), batch[:, 1:])
        return (losses * weights).sum() / weights.sum()

    @partial(mx.compile, inputs=state, outputs=state)
    def update(batch: mx.array, weights: mx.array) -> mx.array:
        loss, gradients = nn.value_and_grad(model, loss_of)(batch, weights)
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        return loss

    losses: list[float] = []
    for number, (batch, weights) in enumerate(islice(rows, updates)):
        loss = update(batch, weights)
        mx.eval(loss, state)
        losses.append(loss.item())
        if number % 100 == 99:
            print(f"{number + 1:>6} {np.mean(losses[-100:]):.3f} {time.process_time():.0f} s", flush=True)
    return float(np.mean(losses[-100:]))


def save(out: Path, model: Any, tokenizer: Any) -> None:
    """Write mlx-lm's format; the tokenizer last, its files are written by transformers."""
    out.mkdir(parents=True, exist_ok=True)
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(out / "model.safetensors"), weights, metadata={"format": "mlx"})
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(out)
    for name in (
        "chat_template.jinja",
    ):  # older versions of transformers read it from tokenizer_config.json only
        (out / name).unlink(missing_ok=True)
    settings = json.loads((out / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings = {"chat_template": TEMPLATE, **settings, "tokenizer_class": "PreTrainedTokenizerFast"}
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    from mlx_lm.models.llama import Model, ModelArgs

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--peak", type=float, default=4e-3)
    options = parser.parse_args()
    mx.random.seed(SEED)
    mx.set_default_device(mx.cpu)  # the figures in docs/bundled.md are the CPU's
    avoid = avoided()
    sample = islice(documents(SEED + 1, avoid), 6000)
    tokenizer = make_tokenizer(f"{one.prompt}\n{one.text}" for one in sample)
    CONFIG["vocab_size"] = len(tokenizer)
    model = Model(ModelArgs.from_dict(CONFIG))
    size = sum(value.size for _, value in tree_flatten(model.parameters()))
    print(f"{size / 1e6:.2f} million parameters, {CONFIG['vocab_size']} tokens")
    loss = train(model, batches(tokenizer, SEED, avoid), options.updates, options.peak)
    save(options.out, model, tokenizer)
    print(f"loss {loss:.3f} after {options.updates} updates, {time.process_time():.0f} s of CPU time")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
