"""Generate the bundled model: a byte-level BPE tokenizer and a small Llama, trained from scratch on generated text.

    python scripts/make_tiny_model.py            # writes mlxsched/bundled/tiny, in mlx-lm's format

scripts/excel/corpus.py generates the training text; docs/bundled.md has the durations and the losses. The same seed on
the same machine, with the same versions, gives the same weights.
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
from random import Random
from typing import Any

if sys.platform == "linux":  # MLX's own BLAS there is about fifty times slower; see docs/bundled.md
    try:
        ctypes.CDLL("libopenblas.so.0", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        print(
            "note: no OpenBLAS found, so this will take hours; install libopenblas0-pthread", file=sys.stderr
        )

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from excel.corpus import Document, documents
from excel.parts import Said
from excel.requests import request
from make_excel_data import make
from mlx import nn
from mlx.utils import tree_flatten

SEED = 7
SPECIAL = ("<pad>", "<s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# Only a lower-case word takes the space before it. So a name that is copied from a request into a formula (B12, North)
# has the same tokens in both. A cell such as B12 is one token.
PIECES = r"[A-Z]{1,2}\d{1,4}|\d{1,4}| ?[a-z']+|[A-Z][a-z]+|[A-Z]{2,}|[A-Z]|\s|[^\sA-Za-z\d]"
VOCABULARY = 1400
CONFIG: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 128, "num_hidden_layers": 4,
    "intermediate_size": 352, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 32,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 1024, "tie_word_embeddings": True,
    "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "torch_dtype": "float32",
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 5,
}  # fmt: skip
ROWS = 24  # documents per update
OUT = Path(__file__).resolve().parent.parent / "mlxsched" / "bundled" / "tiny"


def avoided() -> frozenset[str]:
    """Every request and every formula of the fine-tuning set, to keep them out of pretraining."""
    return frozenset(text for rows in make().values() for row in rows for text in (row.text, row.formula))


def sample_requests(count: int) -> Iterator[Said]:
    """Text with the words that the tokenizer should know."""
    rng = Random(SEED + 1)
    return (request(rng) for _ in range(count))


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
    """The tokens of a document (in chat format if it has a prompt), and how many of them at the front are not learned."""
    start = f"<s><|user|>{document.prompt}<|end|><|assistant|>" if document.prompt else "<s>"
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in (start, document.text + "<|end|>")]
    return ids[0] + ids[1], len(ids[0])


def batches(tokenizer: Any, seed: int, avoid: frozenset[str]) -> Iterator[tuple[mx.array, mx.array]]:
    """Padded batches of ROWS documents of similar length; weights are 0 for tokens that are not learned.

    A row holds one document, so a name can only be copied from that document's own text.
    """
    rng, source = Random(seed), documents(seed, avoid)
    while True:
        encoded = sorted(
            (encode(tokenizer, one) for one in islice(source, ROWS * 20)), key=lambda pair: len(pair[0])
        )
        groups = [encoded[at : at + ROWS] for at in range(0, len(encoded), ROWS)]
        rng.shuffle(groups)
        yield from map(pad, groups)


def pad(group: list[tuple[list[int], int]]) -> tuple[mx.array, mx.array]:
    """Tokens and weights of a group as arrays. Their width is a multiple of 8, so that few shapes are traced."""
    width = -(-max(len(ids) for ids, _ in group) // 8) * 8
    tokens, weights = np.zeros((len(group), width), np.int32), np.zeros((len(group), width - 1), np.float32)
    for at, (ids, skip) in enumerate(group):
        tokens[at, : len(ids)] = ids
        weights[at, skip - 1 : len(ids) - 1] = 1
    return mx.array(tokens), mx.array(weights)


def ready_to_copy(model: Any) -> None:
    """Initialize the attention so that attending to a token copies it, and similar tokens attend to each other.

    The value matrix is orthogonal and the output matrix a fraction of its transpose, so that together they are a
    multiple of the identity; the key matrix contains the query matrix. This is the mimetic initialization of Trockman
    and Kolter (2023), with the sign that copying needs. The model then learns to copy in a third of the updates.
    """
    for layer in model.layers:
        attention = layer.self_attn
        orthogonal, _ = mx.linalg.qr(mx.random.normal(attention.v_proj.weight.shape))
        attention.v_proj.weight = orthogonal
        attention.o_proj.weight = 0.3 * orthogonal.T
        attention.k_proj.weight = attention.k_proj.weight + attention.q_proj.weight


def train(model: Any, rows: Iterator[tuple[mx.array, mx.array]], updates: int, peak: float) -> float:
    """Train with bias-corrected AdamW, a warmup of 1/20, then linear to zero; returns the mean loss of the last 100 updates."""
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
    """Write mlx-lm's format; the tokenizer's files, which transformers writes, are adjusted last."""
    out.mkdir(parents=True, exist_ok=True)
    weights = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(out / "model.safetensors"), weights, metadata={"format": "mlx"})
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(out)
    for name in (
        "chat_template.jinja",
    ):  # older versions of transformers read the template from tokenizer_config.json only
        (out / name).unlink(missing_ok=True)
    settings = json.loads((out / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings = {"chat_template": TEMPLATE, **settings, "tokenizer_class": "PreTrainedTokenizerFast"}
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    from mlx_lm.models.llama import Model, ModelArgs

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--updates", type=int, default=2600)
    parser.add_argument("--peak", type=float, default=3e-3)
    options = parser.parse_args()
    mx.random.seed(SEED)
    mx.set_default_device(mx.cpu)  # the figures in docs/bundled.md were measured on the CPU
    avoid = avoided()
    tokenizer = make_tokenizer(f"{one.text}\n{one.formula}" for one in sample_requests(10000))
    CONFIG["vocab_size"] = len(tokenizer)
    model = Model(ModelArgs.from_dict(CONFIG))
    ready_to_copy(model)
    size = sum(value.size for _, value in tree_flatten(model.parameters()))
    print(f"{size / 1e6:.2f} million parameters, {CONFIG['vocab_size']} tokens")
    loss = train(model, batches(tokenizer, SEED, avoid), options.updates, options.peak)
    save(options.out, model, tokenizer)
    print(f"loss {loss:.3f} after {options.updates} updates, {time.process_time():.0f} s of CPU time")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
