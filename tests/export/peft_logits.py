"""A program: the logits of a model with a PEFT adapter, computed by transformers and peft.

peft_logits.py MODEL ADAPTER TOKENS OUT: MODEL and ADAPTER are directories, TOKENS a JSON list, OUT a .npy file.
"""

from __future__ import annotations

import json
import sys

import numpy as np


def main(model: str, adapter: str, tokens: str, out: str) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, adapter).eval()
    with torch.no_grad():
        logits = tuned(torch.tensor([json.loads(tokens)])).logits[0]
    np.save(out, logits.float().numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
