"""A fused model as a GGUF file: the header of a GGUF file of its base, with the tensors of the fused model.

Tokenizer, chat template and settings are copied from the base's file, since nothing else describes them as llama.cpp needs
them. mlx-lm's own writer (`mlx_lm.fuse --export-gguf`) writes every tokenizer as SentencePiece's, with the same score for
each token, so that llama.cpp cuts text into other tokens than the model was trained on.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlxsched.errors import ChecksFailed, UsageError
from mlxsched.export.adapter import TrainedAdapter
from mlxsched.export.folder import check_free, write_folder
from mlxsched.export.fuse import divergence_of_folders, fuse
from mlxsched.export.gguf_adapter import library
from mlxsched.model.gguf import FAMILIES, NAMES, convert, halves_to_interleaved
from mlxsched.model.local import gguf_file
from mlxsched.model.trees import Tensors

FILE = "model.gguf"
ROPE = "rope_freqs.weight"  # Llama 3's, which no training changes
_TYPES = ("general.file_type", "general.quantization_version", "general.architecture")  # replaced
_MOSTLY_F16 = 1
# Nats per token that half-precision weights may cost, as in `mlxsched.export.fuse.TOLERANCE`.
TOLERANCE = 1e-2


def export_fused(
    adapter: TrainedAdapter, target: Path, *, base: str | None = None, force: bool = False
) -> list[str]:
    """Write ``model.gguf`` into ``target``, in float16, and return the names of the files.

    Args:
        adapter: what to fuse.
        target: the folder.
        base: a GGUF file of the run's model, for a run that was not trained on one.
        force: overwrite a file of that name that is not ours.

    Raises:
        UsageError: there is no such file, or it is of another model or of a family that this module does not know.
        ChecksFailed: the file, read back, does not predict what the fused model predicts. Nothing is written then.
    """
    library()
    check_free(target, [FILE], force=force)
    source = _base_file(adapter, base)

    def fill(directory: Path) -> None:
        with tempfile.TemporaryDirectory(dir=directory.parent) as name:
            fused, again = Path(name) / "fused", Path(name) / "again"
            fuse(adapter, fused, dequantize=True)
            write_model(source, fused, directory / FILE)
            again.mkdir()
            convert(directory / FILE, again)
            _check(adapter, fused, again)

    return write_folder(target, fill, force=force)


def write_model(base: Path, fused: Path, file: Path) -> None:
    """Write ``file``: the metadata of the GGUF file ``base`` with the weights of ``fused``, a folder in mlx-lm's format."""
    gguf = library()
    reader = gguf.GGUFReader(str(base))
    family = str(reader.fields["general.architecture"].contents())
    if family not in FAMILIES:
        raise UsageError(
            f"fused models of the architecture {family} can't be written as GGUF; supported are {', '.join(FAMILIES)}. "
            "Use `mlxsched fuse --dequantize` and llama.cpp's convert_hf_to_gguf.py."
        )
    writer = gguf.GGUFWriter(str(file), family)
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in _TYPES:
            inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    writer.add_file_type(_MOSTLY_F16)
    _write_tensors(writer, dict(_tensors(base, reader, family, _weights(fused))))


def _write_tensors(writer: Any, tensors: Mapping[str, mx.array]) -> None:
    """Header first and one tensor after the other, so that a large model is never in memory twice."""
    for name, value in tensors.items():
        kind = np.dtype(np.float32 if value.dtype == mx.float32 else np.float16)
        writer.add_tensor_info(name, value.shape, kind, value.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for value in tensors.values():
        writer.write_tensor_data(np.array(value))
    writer.close()


def _tensors(base: Path, reader: Any, family: str, weights: Tensors) -> Iterator[tuple[str, mx.array]]:
    """The tensors in the order of ``base``, as llama.cpp stores them: norms and biases float32, all else float16."""
    heads = {
        f"attn_{part}": int(reader.fields[f"{family}.attention.{key}"].contents())
        for part, key in (("q", "head_count"), ("k", "head_count_kv"))
    }
    for tensor in reader.tensors:
        if tensor.name == ROPE:
            yield ROPE, mx.array(np.array(tensor.data))
            continue
        name, shape = _mlx_name(tensor.name), tuple(int(size) for size in reversed(tensor.shape))
        value = weights.get(name)
        if value is None or value.shape != shape:
            here = "missing" if value is None else value.shape
            raise UsageError(f"{base} is not of the run's model: {name} is {shape} there and {here} here.")
        part = tensor.name.split(".")[-2]
        if family == "llama" and part in heads:
            value = halves_to_interleaved(value, heads[part])
        yield tensor.name, value.astype(mx.float32 if value.ndim == 1 else mx.float16)


def _mlx_name(name: str) -> str:
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in NAMES:
        raise UsageError(f"the models of this family have no tensor {name}: take another GGUF file.")
    layer, module, kind = match.groups()
    return ".".join([*(("model", "layers", layer) if layer else ()), NAMES[module], kind])


def _base_file(adapter: TrainedAdapter, base: str | None) -> Path:
    file = gguf_file(base or adapter.config.model)
    if file is None:
        raise UsageError(
            f"a fused GGUF file needs the tokenizer of a GGUF file of the same model, and {adapter.config.model} is none. "
            "Name one with --from, or use `mlxsched fuse --dequantize` and llama.cpp's convert_hf_to_gguf.py."
        )
    return file


def _weights(folder: Path) -> Tensors:
    weights: Tensors = {}
    for path in sorted(folder.glob("model*.safetensors")):
        loaded: Any = mx.load(str(path))
        weights |= loaded
    return weights


def _check(adapter: TrainedAdapter, fused: Path, again: Path) -> None:
    """Compare what was written, read back as a model, with the fused model: first each weight, then what both predict.

    The weights find a wrong order of rows, which changes the predictions of a small model by less than rounding may. The
    predictions find a header that belongs to another model.
    """
    ours, read = _weights(fused), _weights(again)
    wrong = [name for name in ours if name not in read or not _equal(ours[name], read[name])]
    if wrong:
        raise ChecksFailed(
            f"the GGUF file, read back, differs from the fused model in {wrong[0]}. Nothing was written."
        )
    found = divergence_of_folders(adapter, fused, again)
    if not found <= TOLERANCE:
        raise ChecksFailed(
            f"the GGUF file, read back, differs from the fused model by {found:.2e} nats per token; at most {TOLERANCE:g} "
            "is rounding. Is the file of the base that of another version of the model? Nothing was written."
        )


def _equal(fused: mx.array, read: mx.array) -> bool:
    return fused.shape == read.shape and bool(mx.array_equal(fused.astype(read.dtype), read))
