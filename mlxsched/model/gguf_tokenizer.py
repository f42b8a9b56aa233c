"""The tokenizer that the metadata of a GGUF file describes, as transformers' fast tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlxsched.errors import ModelError

_CONTROL, _USER_DEFINED = 3, 4  # tokenizer.ggml.token_type

# How text is cut before byte pairs are merged, by tokenizer.ggml.pre; None is GPT-2's rule, which ByteLevel has itself.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"\p{N}{1,3}" + _REST
_QWEN2 = _CONTRACTIONS + r"\p{N}" + _REST
SPLITS: dict[str, str | None] = {
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "smaug-bpe": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "gpt-2": None,
    "default": None,
}
DIGITS = (
    "smollm",
    "starcoder",
    "refact",
    "command-r",
    "codeshell",
    "exaone",
)  # each digit alone, then GPT-2's rule


def build_tokenizer(file: Path, metadata: Mapping[str, Any]) -> Any:
    """The tokenizer, with its special tokens and its chat template."""
    import transformers

    make: Any = transformers.PreTrainedTokenizerFast

    tokens = metadata["tokenizer.ggml.tokens"]
    special = {
        role: tokens[int(metadata[f"tokenizer.ggml.{key}_token_id"])]
        for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
        if f"tokenizer.ggml.{key}_token_id" in metadata
    }
    tokenizer = make(
        tokenizer_object=_with_bos(_backend(file, metadata), metadata, special.get("bos")),
        clean_up_tokenization_spaces=False,
        **{f"{role}_token": token for role, token in special.items()},
    )
    tokenizer.chat_template = metadata.get("tokenizer.chat_template")
    return tokenizer


def _backend(file: Path, metadata: Mapping[str, Any]) -> Any:
    from tokenizers import AddedToken

    kind = metadata.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise ModelError(f"{file} has a tokenizer of the kind '{kind}'; supported are gpt2 and llama.")
    backend = _byte_level(file, metadata) if kind == "gpt2" else _sentencepiece(metadata)
    types = metadata["tokenizer.ggml.token_type"].tolist()
    pairs = list(zip(metadata["tokenizer.ggml.tokens"], types, strict=True))
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, kind in pairs if kind == _CONTROL]
    )
    backend.add_tokens(
        [AddedToken(t, special=False, normalized=False) for t, kind in pairs if kind == _USER_DEFINED]
    )
    return backend


def _byte_level(file: Path, metadata: Mapping[str, Any]) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.BPE(vocab=_vocabulary(metadata), merges=list(_listed_merges(metadata))))
    pre = metadata.get("tokenizer.ggml.pre", "default")
    if pre not in SPLITS and pre not in DIGITS:
        known = ", ".join([*SPLITS, *DIGITS])
        raise ModelError(
            f"{file} splits text by the rule '{pre}', which is not supported. Supported are {known}."
        )
    split = SPLITS.get(pre)
    steps: list[Any] = []
    if pre in DIGITS:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if split:
        steps.append(pre_tokenizers.Split(Regex(split), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(metadata: Mapping[str, Any]) -> Any:
    """Byte pairs in SentencePiece's manner, as Hugging Face's tokenizer of Llama 2 has them."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    vocabulary = _vocabulary(metadata)
    merges = list(_listed_merges(metadata)) or _merges_by_score(vocabulary, metadata["tokenizer.ggml.scores"])
    unknown = metadata["tokenizer.ggml.tokens"][int(metadata.get("tokenizer.ggml.unknown_token_id", 0))]
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    space = [normalizers.Replace(" ", "▁")]
    first = metadata.get("tokenizer.ggml.add_space_prefix", True)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), *space] if first else space)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if first else steps)
    return backend


def _vocabulary(metadata: Mapping[str, Any]) -> dict[str, int]:
    return {token: index for index, token in enumerate(metadata["tokenizer.ggml.tokens"])}


def _listed_merges(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for merge in metadata.get("tokenizer.ggml.merges", ()):
        left, _, right = merge.partition(" ")
        yield left, right


def _merges_by_score(vocabulary: Mapping[str, int], scores: Any) -> list[tuple[str, str]]:
    """The merges that a SentencePiece vocabulary implies: each way to make a token of two, best token first.

    >>> _merges_by_score({"a": 0, "b": 1, "ab": 2, "aab": 3}, [0.0, 0.0, -1.0, -2.0])
    [('a', 'b'), ('a', 'ab')]
    """
    values = scores.tolist() if hasattr(scores, "tolist") else list(scores)
    found = []
    for token, index in vocabulary.items():
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [(left, right) for left, right in pairs if left in vocabulary and right in vocabulary]
        pairs.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        found += [(values[index], pair) for pair in pairs]
    return [pair for _, pair in sorted(found, key=lambda item: -item[0])]


def _with_bos(backend: Any, metadata: Mapping[str, Any], bos: str | None) -> Any:
    """Begin each text with ``bos`` where the file says so; SentencePiece files do unless they say no."""
    from tokenizers.processors import TemplateProcessing

    by_default = metadata.get("tokenizer.ggml.model") == "llama"
    if bos and metadata.get("tokenizer.ggml.add_bos_token", by_default):
        number = int(metadata["tokenizer.ggml.bos_token_id"])
        backend.post_processor = TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, number)]
        )
    return backend
