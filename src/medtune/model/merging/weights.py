"""The merged weights, computed and written block by block: no tensor is ever whole in memory.

A sum is computed in float32 and rounded once.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from medtune.errors import ModelError, Option
from medtune.model.merging.planning import MergedTensor, MergePlan, dtype_name
from medtune.model.tensor_files import INDEX_NAME, TensorFileWriter, blocks
from medtune.runtime.terminal import one_line
from medtune.storage.reading import FileRecord

# How much of a tensor, in float32, is in memory at once. LLaMA-3's head takes 2.1 GB, its block some copies of this.
BLOCK_BYTES = 2**25


def write_merge(
    plan: MergePlan,
    folder: Path,
    *,
    on_bytes: Callable[[int], None] = lambda count: None,
    block_bytes: int = BLOCK_BYTES,
) -> dict[str, FileRecord]:
    """Write the shards of `plan`, and their index, to `folder`; `on_bytes` is told what each block took.

    Returns sizes and checksums of the shards. Raises ModelError, naming the tensor, if a merged number is NaN or
    infinite.
    """
    written = {}
    for file, names in plan.files.items():
        shapes = {name: (plan.tensors[name].dtype, plan.tensors[name].source.shape) for name in names}
        with TensorFileWriter(folder / file, shapes) as writer:
            for name in names:
                _write_tensor(name, plan.tensors[name], writer, on_bytes, block_bytes)
        written[file] = writer.record()
    if len(plan.files) > 1:
        places = {name: file for file, names in plan.files.items() for name in names}
        index = {"metadata": {"total_size": plan.bytes}, "weight_map": dict(sorted(places.items()))}
        (folder / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return written


def _write_tensor(
    name: str, tensor: MergedTensor, writer: TensorFileWriter, on_bytes: Callable[[int], None], block_bytes: int
) -> None:
    source, merge = tensor.source, tensor.update.merger() if tensor.update else None
    for start, stop in blocks(source, block_bytes):
        block = source.read_rows(start, stop)
        if merge is not None:
            block = merge(block.float(), start)
        block = block.to(tensor.dtype)
        if block.is_floating_point() and not torch.isfinite(block).all():
            problem = f"merged, it holds numbers that are NaN or beyond {dtype_name(tensor.dtype)}"
            fix = ("train the adapter again if it is broken, or give a wider ", Option("dtype"))
            raise ModelError(one_line(name), problem, fix)
        on_bytes(writer.write(block))
