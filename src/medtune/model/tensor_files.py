"""Safetensors files read and written piece by piece: a model of any size in little memory.

The safetensors library maps a file into memory, and what was touched of a map counts as this process's own. So a file
is opened again for every block that is read, and closed before the next. The library writes whole files only; here they
are written in blocks. The format is a length of 8 bytes, a header in JSON, and the tensors' bytes one after the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medtune.errors import ModelError, first_line
from medtune.runtime.terminal import one_line
from medtune.storage.reading import DamagedError, FileRecord, check_type, read_mapping

INDEX_NAME, SINGLE_NAME = "model.safetensors.index.json", "model.safetensors"
_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file, by the name that it has there."""

    file: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def rows(self) -> int:
        """What it is read by: its first dimension, or 1 for a single number."""
        return self.shape[0] if self.shape else 1

    @property
    def row_elements(self) -> int:
        """Numbers in a row."""
        return prod(self.shape[1:])

    @property
    def bytes(self) -> int:
        """What all of it takes."""
        return self.rows * self.row_elements * self.dtype.itemsize

    def read_rows(self, start: int, stop: int) -> Tensor:
        """Rows from `start` to `stop` in memory of their own: (stop - start, …).

        Raises ModelError if the file is no longer as it was.
        """
        try:
            with safe_open(self.file, framework="pt") as file:
                values = file.get_slice(self.name)[start:stop] if self.shape else file.get_tensor(self.name)
                return values.clone()  # type: ignore[no-any-return]
        except (SafetensorError, OSError) as error:
            raise ModelError(self.file, f"cut off or changed ({first_line(error)})", "fetch the model again") from None

    def read(self) -> Tensor:
        """All of it."""
        return self.read_rows(0, self.rows)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of the model in `folder` by their names, from one file or from those that its index lists.

    Raises ModelError, naming the file, if one is missing, torn, or not what the index says.
    """
    index = folder / INDEX_NAME
    if not index.is_file():
        return stored_in(folder / SINGLE_NAME)
    try:
        places = check_type(dict[str, str], read_mapping(index).get("weight_map"))
        if strange := [name for name in places.values() if PurePath(name).name != name]:
            raise DamagedError(f"weight_map names {one_line(strange[0])}, which is not in the folder")
    except DamagedError as error:
        raise ModelError(index, str(error), "fetch the model again") from None
    found: dict[str, StoredTensor] = {}
    for name in sorted(set(places.values())):
        found |= stored_in(folder / name)
    if missing := sorted(places.keys() - found.keys()):
        raise ModelError(index, f"lists {one_line(missing[0])}, which no file holds", "fetch the model again")
    return {name: tensor for name, tensor in found.items() if name in places}


def stored_in(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file. Raises ModelError."""
    try:
        # The library checks the header against the file's size.
        with safe_open(file, framework="pt") as content:
            return {name: _described(file, name, content.get_slice(name)) for name in content.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(file, "missing", "fetch the model again, or save it in safetensors files") from None
    except (SafetensorError, OSError, DamagedError) as error:
        fix = "fetch the model again"
        raise ModelError(one_line(str(file)), f"cannot be read ({first_line(error)})", fix) from None


class TensorFileWriter:
    """Writes one safetensors file; tensors come in the order in which they were announced, in blocks of any size."""

    def __init__(self, file: Path, tensors: Mapping[str, tuple[torch.dtype, Sequence[int]]]) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, (dtype, shape) in tensors.items():
            begin, end = end, end + prod(shape) * dtype.itemsize
            header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":")).encode("utf-8")
        # Spaces up to a multiple of 8, as the library writes them, so that tensors lie aligned.
        self._header = text + b" " * (-len(text) % 8)
        self._path, self.expected, self.written = file, end, 0
        self._checksum = hashlib.sha256()

    def __enter__(self) -> TensorFileWriter:
        self._file = self._path.open("wb")
        self._write(len(self._header).to_bytes(8, "little") + self._header)
        return self

    def write(self, block: Tensor) -> int:
        """Write the next values; returns their bytes."""
        data = block.contiguous().reshape(-1).view(torch.uint8).numpy().data
        self._write(data)
        self.written += len(data)
        return len(data)

    def record(self) -> FileRecord:
        """What tells the file, once it is whole, from another: reading it again would take as long as writing it."""
        return FileRecord(8 + len(self._header) + self.written, self._checksum.hexdigest())

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._checksum.update(data)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._file.close()
        if kind is None and self.written != self.expected:
            raise ValueError(f"{self._path}: {self.written} bytes were written of {self.expected} that were announced")


def _described(file: Path, name: str, part: Any) -> StoredTensor:
    if part.get_dtype() not in _DTYPES:
        raise DamagedError(f"holds numbers of type {one_line(part.get_dtype())}, as only quantised weights do")
    return StoredTensor(file, name, _DTYPES[part.get_dtype()], tuple(part.get_shape()))


def blocks(tensor: StoredTensor, block_bytes: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows that take about `block_bytes` in float32, one row at least."""
    rows = max(1, block_bytes // max(1, 4 * tensor.row_elements))
    for start in range(0, tensor.rows, rows):
        yield start, min(start + rows, tensor.rows)
