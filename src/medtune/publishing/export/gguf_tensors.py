"""What becomes of each tensor of a model in a GGUF file, and its bytes there, block by block."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medtune.errors import ModelError, Option
from medtune.model.tensor_files import StoredTensor, blocks
from medtune.publishing.export.gguf_architectures import Architecture, head_size, rope_tensors
from medtune.runtime.terminal import one_line

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

# How much of a tensor, in float32, is in memory at once.
BLOCK_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor by the name and kind of number that it has in the file, `shape` being torch's.

    With `heads` its rows are of so many attention heads, and each head's are reordered; `shift` is added to it. A
    tensor that no file holds has its `values`.
    """

    name: str
    kind: "GGMLQuantizationType"
    shape: tuple[int, ...]
    source: StoredTensor | None = None
    heads: int = 0
    shift: float = 0.0
    scale: float = 1.0
    values: tuple[float, ...] = ()

    @property
    def bytes(self) -> int:
        """What it takes in the file."""
        from gguf.constants import GGML_QUANT_SIZES

        block, size = GGML_QUANT_SIZES[self.kind]
        elements = 1
        for length in self.shape:
            elements *= length
        return elements // block * size

    def encoded(self, block_bytes: int = BLOCK_BYTES) -> Iterator[memoryview]:
        """Its bytes in the file. Raises ModelError, naming it, if a number does not fit its kind."""
        if self.source is None:
            yield self._encode(torch.tensor(self.values))
            return
        rows = self.shape[0] // self.heads if self.heads else 1
        for start, stop in _in_whole_heads(self.source, block_bytes, rows):
            block = self.source.read_rows(start, stop).float()
            if self.heads:
                block = interleaved(block, (stop - start) // rows)
            yield self._encode(block.add_(self.shift).mul_(self.scale))

    def _encode(self, block: Tensor) -> memoryview:
        import numpy
        from gguf import quants

        with numpy.errstate(over="ignore", invalid="ignore"):  # which is looked for below
            encoded = quants.quantize(block.contiguous().numpy(), self.kind)
        if self.kind.name == "F16" and not numpy.isfinite(encoded).all():
            fix = ("give a wider ", Option("dtype", "bf16"))
            raise ModelError(one_line(self.name), "holds numbers that are NaN or beyond float16", fix)
        return encoded.reshape(-1).view("uint8").data


def interleaved(rows: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys, the halves of each head interleaved: transformers rotates (i, i + n/2), llama.cpp pairs.

    As llama.cpp's converter has it. A bias is a column of them.
    """
    return rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def plan_tensors(
    stored: Mapping[str, StoredTensor], config: Any, architecture: Architecture, kind: str
) -> list[GgufTensor]:
    """Every tensor of the file for a model's `stored` ones, its matrices as `kind`: F32, F16, BF16 or Q8_0.

    What is no matrix stays in float32, as llama.cpp wants it. Raises ModelError for a tensor that has no name there.
    """
    named = name_map(architecture, config)
    # A head that is the embeddings is read from these.
    is_tied = architecture.tied or bool(config.tie_word_embeddings)
    planned = []
    for name, tensor in stored.items():
        if name.endswith(("rotary_emb.inv_freq", "attention.bias")) or (is_tied and name == "lm_head.weight"):
            continue
        shift = 1.0 if architecture.shifts_norms and name.endswith("norm.weight") else 0.0
        heads = heads_of(name, config, architecture)
        planned.append(GgufTensor(named(name), _kind(tensor.shape, kind), tensor.shape, tensor, heads, shift))
    extra = [
        GgufTensor(name, _kind((len(values),), kind), (len(values),), values=tuple(values))
        for name, values in rope_tensors(config).items()
    ]
    return [*extra, *planned]


def name_map(architecture: Architecture, config: Any) -> Callable[[str], str]:
    """A function from transformers' name of a tensor to llama.cpp's. It raises ModelError for one that has none."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    by_name = {name: arch for arch, name in MODEL_ARCH_NAMES.items()}
    known = get_tensor_name_map(by_name[architecture.name], config.num_hidden_layers)

    def named(name: str) -> str:
        found = known.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ModelError(one_line(name), f"llama.cpp's {architecture.name} has no such tensor")
        return str(found)

    return named


def heads_of(name: str, config: Any, architecture: Architecture) -> int:
    """How many heads' rows a tensor's are, if they are to be reordered; 0 if not."""
    if not architecture.permutes:
        return 0
    layer = name.removesuffix(".weight").removesuffix(".bias")
    if layer.endswith("q_proj"):
        return int(config.num_attention_heads)
    return int(config.num_key_value_heads or config.num_attention_heads) if layer.endswith("k_proj") else 0


def require_whole_heads(planned: list[GgufTensor], config: Any) -> None:
    """Raises ModelError if queries or keys have other rows than their heads have numbers."""
    for tensor in planned:
        if tensor.heads and tensor.shape[0] != tensor.heads * head_size(config):
            raise ModelError(tensor.name, f"has {tensor.shape[0]:,} rows for {tensor.heads} heads", "merge again")


def _kind(shape: tuple[int, ...], wanted: str) -> "GGMLQuantizationType":
    from gguf import GGMLQuantizationType
    from gguf.constants import GGML_QUANT_SIZES

    kind = GGMLQuantizationType[wanted]
    if len(shape) < 2:
        return GGMLQuantizationType.F32
    # Rows that blocks do not divide, as llama.cpp's converter has them.
    return kind if shape[-1] % GGML_QUANT_SIZES[kind][0] == 0 else GGMLQuantizationType.F16


def _in_whole_heads(tensor: StoredTensor, block_bytes: int, rows: int) -> Iterator[tuple[int, int]]:
    """Ranges as of `blocks`, each of a multiple of `rows`."""
    if rows == 1:
        yield from blocks(tensor, block_bytes)
        return
    step = max(rows, block_bytes // max(1, 4 * tensor.row_elements) // rows * rows)
    for start in range(0, tensor.rows, step):
        yield start, min(start + step, tensor.rows)
