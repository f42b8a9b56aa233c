"""A process that tokenizes chunks of records for another one, which starts it: `helpers`.

It reads pickled objects from stdin and writes pickled objects to stdout: first the tokenizer and the options, and the
identity of its encoder in return; then one chunk after the other, and what became of it. It ends when stdin is closed,
so also when the process that started it dies. It never imports MLX.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from mlxsched.data.encode import Encoder
from mlxsched.data.tokenizing import Tokenizing
from mlxsched.errors import MlxschedError


@dataclass
class TokenizerCopy:
    """What `Encoder` uses of mlx-lm's ``TokenizerWrapper``, whose module imports MLX."""

    _tokenizer: Any
    eos_token_ids: set[int]
    has_chat_template: bool
    has_thinking: bool
    _thinking_kwarg: str | None
    _more: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self._thinking_kwarg is not None:
            self._more = {self._thinking_kwarg: self.has_thinking}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # unpickling asks for some before there is a tokenizer
            raise AttributeError(name)
        return getattr(self._tokenizer, name)

    def apply_chat_template(self, *args: Any, **more: Any) -> Any:
        """As the wrapper does it."""
        return self._tokenizer.apply_chat_template(*args, **{**self._more, **more, "return_dict": False})


def copy_of(tokenizer: Any) -> Any:
    """A tokenizer that another process can unpickle, with the same results; None if there is none."""
    inner = getattr(tokenizer, "_tokenizer", None)
    wrapped = hasattr(inner, "special_tokens_map")
    fast = inner if wrapped else tokenizer
    ours = type(fast).__module__.startswith("transformers.") and getattr(fast, "is_fast", False)
    if not ours or getattr(tokenizer, "_chat_template", None) is not None:
        return None  # code of somebody else, or a function of mlx-lm in place of a template
    if not wrapped:
        return tokenizer
    thinking = getattr(tokenizer, "_thinking_kwarg", None)
    return TokenizerCopy(
        inner, set(tokenizer.eos_token_ids), tokenizer.has_chat_template, tokenizer.has_thinking, thinking
    )


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Tokenize chunks until ``requests`` ends."""
    tokenizer, options = pickle.load(requests)  # noqa: S301 - from the process that started this one
    encoder = Encoder(tokenizer, options.mask_prompt)
    tokenize = Tokenizing(encoder, options)
    reply: object = encoder.identity()
    while True:
        pickle.dump(reply, replies, pickle.HIGHEST_PROTOCOL)
        replies.flush()
        chunk, formats = pickle.load(requests)  # noqa: S301
        try:
            reply = tokenize(chunk, formats)
        except MlxschedError as error:
            reply = error


def main() -> None:
    """Serve on stdin and stdout; whatever prints goes to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.suppress(EOFError, BrokenPipeError):
        serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
