"""The folder of a merged model: files beside the weights, its record, and folders that are something else."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from medtune.errors import ModelError
from medtune.model.merging.folder import existing_merge, read_record, record_of, require_whole, write_companions
from medtune.model.merging.record import MergeRecord


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def base(tmp_path):
    config = {
        "dtype": "bfloat16", "tie_word_embeddings": True, "auto_map": {"AutoModel": "code.py"},
        "_name_or_path": "/home/x", "text_config": {"torch_dtype": "bfloat16", "tie_word_embeddings": True},
    }  # fmt: skip
    files = {"config.json": json.dumps(config), "generation_config.json": "{}", "LICENSE": "free", "code.py": "raise"}
    return write(tmp_path / "base", {**files, "tokenizer.json": "base", "special_tokens_map.json": "base"})


def test_the_adapters_tokenizer_comes_whole_and_no_code_with_it(base, tmp_path):
    adapter = write(tmp_path / "adapter", {"tokenizer.json": "adapter", "medtune.json": "{}"})
    folder = write(tmp_path / "merged", {})
    write_companions(base, adapter, folder, dtype="float16", untied=False)
    names = {file.name for file in folder.iterdir()}
    assert names == {"config.json", "generation_config.json", "LICENSE", "tokenizer.json", "medtune.json"}
    assert (folder / "tokenizer.json").read_text() == "adapter"


@pytest.mark.parametrize("untied", [False, True])
def test_the_configuration_says_what_was_written(base, tmp_path, untied):
    folder = write(tmp_path / "merged", {})
    write_companions(base, write(tmp_path / "adapter", {}), folder, dtype="float16", untied=untied)
    config = json.loads((folder / "config.json").read_text())
    assert config == {
        "dtype": "float16", "tie_word_embeddings": not untied,
        "text_config": {"torch_dtype": "float16", "tie_word_embeddings": not untied},
    }  # fmt: skip
    assert (folder / "tokenizer.json").read_text() == "base"


def test_a_base_whose_configuration_cannot_be_read_is_named(base, tmp_path):
    (base / "config.json").write_text("[")
    with pytest.raises(ModelError, match=r"base/config\.json: cannot be used"):
        write_companions(base, write(tmp_path / "a", {}), write(tmp_path / "m", {}), dtype="float16", untied=False)


def test_a_record_is_read_where_there_is_one(tmp_path):
    assert read_record(tmp_path / "merge.json") is None
    write(tmp_path, {"merge.json": "{"})
    with pytest.raises(ModelError, match=r"damaged.*delete it, and merge again"):
        read_record(tmp_path / "merge.json")
    for other in ("config.yaml", "adapter_config.json"):
        assert record_of(write(tmp_path / other.replace(".", ""), {"merge.json": "{", other: ""})) is None


def test_only_an_empty_or_missing_folder_is_free(tmp_path):
    wanted = MergeRecord(**dict.fromkeys(field.name for field in fields(MergeRecord)))
    assert existing_merge(tmp_path / "missing" / "below", wanted) is None
    assert existing_merge(write(tmp_path / "empty", {}), wanted) is None
    file = write(tmp_path, {"file": ""}) / "file"
    for folder, reason in ((file, "is a file"), (file / "below", "is no directory"), (tmp_path, "and no merged model")):
        with pytest.raises(ModelError, match=reason):
            existing_merge(folder, wanted)


def test_a_merge_without_checksums_is_not_trusted(tmp_path):
    record = MergeRecord(**dict.fromkeys(field.name for field in fields(MergeRecord)))
    with pytest.raises(ModelError, match="merged before checksums were kept"):
        require_whole(tmp_path, record)
