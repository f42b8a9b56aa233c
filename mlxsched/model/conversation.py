"""Talking with a model: history, streaming, and the same model without its adapter."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.utils import tree_unflatten

from mlxsched.errors import UsageError
from mlxsched.model.load import room_for_answer

Message = dict[str, str]


@contextmanager
def without_adapter(model: Module) -> Iterator[None]:
    """Take LoRA's and DoRA's modules out of ``model`` meanwhile: the base model, without loading it again."""
    adapted = [(name, module) for name, module in model.named_modules() if "lora_a" in module]
    plain = [
        (name, module["linear"] if "linear" in module else module["embedding"]) for name, module in adapted
    ]
    model.update_modules(tree_unflatten(plain))
    try:
        yield
    finally:
        model.update_modules(tree_unflatten(adapted))


class Conversation:
    """Questions and answers with one model; each question is asked with all that was said before.

    Keys and values of tokens that were seen before are reused, so a turn costs its own tokens. With ``base`` the
    model answers without its adapter.
    """

    def __init__(
        self,
        model: Module,
        tokenizer: Any,
        *,
        system: str | None = None,
        max_tokens: int = 512,
        temperature: float = 0.0,
        base: bool = False,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._max_tokens, self._temperature, self._base = max_tokens, temperature, base
        self._cache: Any = None
        self._seen: list[int] = []  # tokens whose keys and values are in the cache, perhaps with later ones
        self.reset(system)

    def reset(self, system: str | None = None) -> None:
        """Forget everything and start over under the system prompt ``system``."""
        self.system = system
        self.messages: list[Message] = [{"role": "system", "content": system}] if system else []
        self._forget_cache()

    def ask(self, prompt: str) -> Generator[str, None, None]:
        """The answer to ``prompt``, piece by piece. Whoever stops reading early keeps what came so far."""
        self.messages.append({"role": "user", "content": prompt})
        pieces: list[str] = []
        complete = False
        try:
            with without_adapter(self._model) if self._base else nullcontext():
                for piece in self._generate(self._tokens()):
                    pieces.append(piece)
                    yield piece
            complete = True
        finally:
            self.messages.append({"role": "assistant", "content": "".join(pieces)})
            if not complete:  # interrupted at an unknown point of a computation
                self._forget_cache()

    def _tokens(self) -> list[int]:
        """All that was said as tokens; without a chat template the last request alone, as it is."""
        if self._tokenizer.chat_template is None:
            system = [self.system] if self.system else []
            return list(self._tokenizer.encode("\n\n".join([*system, self.messages[-1]["content"]])))
        return list(
            self._tokenizer.apply_chat_template(self.messages, add_generation_prompt=True, return_dict=False)
        )

    def _generate(self, tokens: list[int]) -> Iterator[str]:
        from mlx_lm.generate import stream_generate
        from mlx_lm.sample_utils import make_sampler

        room = room_for_answer(self._model, len(tokens))
        if room < 1:
            raise UsageError(
                f"the conversation has {len(tokens)} tokens, which is all that the model has positions for. Shorten it."
            )
        self._model.eval()
        start = self._reuse(tokens)
        self._seen = list(tokens)
        responses = stream_generate(
            self._model,
            self._tokenizer,
            tokens[start:],
            max_tokens=int(min(self._max_tokens, room)),
            sampler=make_sampler(temp=self._temperature),
            prompt_cache=self._cache,
        )
        for response in responses:
            self._seen.append(int(response.token))
            yield response.text

    def _reuse(self, tokens: list[int]) -> int:
        """Cut the cache back to what it has in common with ``tokens`` and return the number of those.

        At least one token is left to compute. Caches that cannot be cut (of recurrent models, of sliding windows
        that are full) are started over.
        """
        from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache

        make: Any = make_prompt_cache
        length = getattr(self._cache[0], "offset", None) if self._cache else None
        if length is None or not isinstance(length, int) or not can_trim_prompt_cache(self._cache):
            self._cache = make(self._model)
            return 0
        cached = self._seen[:length]
        common = next((i for i, (a, b) in enumerate(zip(cached, tokens, strict=False)) if a != b), None)
        keep = min(len(cached) if common is None else common, len(tokens) - 1)
        trim_prompt_cache(self._cache, length - keep)
        return keep

    def _forget_cache(self) -> None:
        self._cache, self._seen = None, []


def seed_sampling(seed: int) -> None:
    """Make answers with a temperature repeatable."""
    mx.random.seed(seed)
