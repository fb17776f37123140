"""Safetensors files in pieces: what is written the library reads, and what it wrote is read."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from medtune.errors import ModelError
from medtune.model.tensor_files import TensorFileWriter, blocks, stored_in, stored_tensors

TENSORS = {
    "a": torch.randn(7, 5).to(torch.bfloat16),
    "b": torch.randn(3),
    "c": torch.tensor(2.5, dtype=torch.float16),
    "d": torch.arange(4),
    "e": torch.tensor([True, False, True]),
    "f": torch.empty(0, 4),
}


def test_what_the_library_wrote_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    found = stored_tensors(tmp_path)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name].read(), TENSORS[name]) for name in TENSORS)
    assert torch.equal(found["a"].read_rows(2, 5), TENSORS["a"][2:5])


def test_the_library_reads_what_is_written_in_blocks(tmp_path):
    names = sorted(TENSORS, key=lambda name: -TENSORS[name].dtype.itemsize)
    assert names[0] == "d"
    shapes = {name: (TENSORS[name].dtype, TENSORS[name].shape) for name in names}
    with TensorFileWriter(tmp_path / "x.safetensors", shapes) as writer:
        for name in names:
            rows = TENSORS[name].reshape(-1).split(2) if TENSORS[name].numel() else [TENSORS[name]]
            for row in rows:
                writer.write(row)
    found = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(found[name], TENSORS[name]) and found[name].dtype == TENSORS[name].dtype for name in TENSORS)


def test_a_file_with_too_few_bytes_is_an_error(tmp_path):
    writer = TensorFileWriter(tmp_path / "x.safetensors", {"a": (torch.float32, (2,))})
    with pytest.raises(ValueError, match="4 bytes were written of 8"), writer:
        writer.write(torch.ones(1))


def test_blocks_hold_every_row_once(tmp_path):
    save_file({"a": torch.ones(10, 4), "one": torch.tensor(1.0)}, tmp_path / "model.safetensors")
    found = stored_tensors(tmp_path)
    assert list(blocks(found["a"], 3 * 16)) == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert list(blocks(found["a"], 1)) == [(row, row + 1) for row in range(10)]
    assert list(blocks(found["one"], 1)) == [(0, 1)]


def test_torn_and_missing_files_are_named(tmp_path):
    file = tmp_path / "model.safetensors"
    with pytest.raises(ModelError, match=r"model\.safetensors: missing"):
        stored_in(file)
    save_file({"a": torch.ones(100)}, file)
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read"):
        stored_in(file)
    file.write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="cannot be read"):
        stored_in(file)


def test_a_file_cut_off_while_it_is_read(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(100)}, file)
    tensor = stored_in(file)["a"]
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ModelError, match="cut off"):
        tensor.read()


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        ({"a": "../model.safetensors"}, "not in the folder"),
        ({"a": "model.safetensors", "b": "model.safetensors"}, "lists b, which no file holds"),
        (["a"], "should be a valid dictionary"),
    ],
)
def test_an_index_that_leads_astray(tmp_path, places, reason):
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(ModelError, match=reason):
        stored_tensors(tmp_path)


def test_numbers_of_eight_bits_are_refused(tmp_path):
    save_file({"a": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="type F8_E4M3, as only quantised weights"):
        stored_tensors(tmp_path)
