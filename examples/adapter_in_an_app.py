"""An adapter in an app: what `mlxsched train` writes is mlx-lm's own format.

    mlxsched train --preset laptop
    python examples/adapter_in_an_app.py runs/laptop-001 "Sum of A1 to A10"

The same adapter behind an HTTP API that speaks OpenAI's protocol:

    mlx_lm.server --model MODEL --adapter-path runs/laptop-001/adapters
"""

import json
import sys
from pathlib import Path

from mlx_lm import generate, load


def answer(run: Path, prompt: str) -> str:
    adapter = run / "adapters"
    base = json.loads((adapter / "adapter_config.json").read_text())["model"]
    model, tokenizer = load(base, adapter_path=str(adapter))
    messages = [{"role": "user", "content": prompt}]
    tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    return generate(model, tokenizer, prompt=tokens, max_tokens=60)


if __name__ == "__main__":
    print(answer(Path(sys.argv[1]), sys.argv[2]))
