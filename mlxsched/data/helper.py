"""A helper process: tokenizes chunks of records for the process that started it (`helpers`).

The two share a connection. The helper process first receives the tokenizer and the options, and replies with the identity
of its encoder. Then it receives one chunk after another, and replies with what became of it. It ends when the connection is
closed, and thus also when the process that started it dies. It never imports MLX.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

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
        """As the wrapper applies it."""
        return self._tokenizer.apply_chat_template(*args, **{**self._more, **more, "return_dict": False})


def copy_of(tokenizer: Any) -> Any:
    """A copy that another process can unpickle and that gives the same results; None if there can be none."""
    inner = getattr(tokenizer, "_tokenizer", None)
    wrapped = hasattr(inner, "special_tokens_map")
    fast = inner if wrapped else tokenizer
    ours = type(fast).__module__.startswith("transformers.") and getattr(fast, "is_fast", False)
    if not ours or getattr(tokenizer, "_chat_template", None) is not None:
        return None  # somebody else's code, or a function of mlx-lm in place of a template
    if not wrapped:
        return tokenizer
    thinking = getattr(tokenizer, "_thinking_kwarg", None)
    return TokenizerCopy(
        inner, set(tokenizer.eos_token_ids), tokenizer.has_chat_template, tokenizer.has_thinking, thinking
    )


def serve(connection: Connection[Any, Any]) -> None:
    """Tokenize chunks until ``connection`` is closed."""
    tokenizer, options = connection.recv()
    encoder = Encoder(tokenizer, options.mask_prompt)
    tokenize = Tokenizing(encoder, options)
    reply: object = encoder.identity()
    while True:
        connection.send(reply)
        chunk, formats = connection.recv()
        try:
            reply = tokenize(chunk, formats)
        except MlxschedError as error:
            reply = error


def main() -> None:
    """Serve on the connection whose file descriptor is the first argument."""
    with contextlib.suppress(EOFError, ConnectionError):
        serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
