"""What tests of merging share."""

from __future__ import annotations

import json
import shutil

import pytest
from merge_checks import save_adapter
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def adapter(tiny, tmp_path_factory):
    return save_adapter(tiny.path, tmp_path_factory.mktemp("merged") / "adapter")


@pytest.fixture
def tied(tiny, tmp_path):
    """The tiny model with one tensor for both embeddings."""
    folder = shutil.copytree(tiny.path, tmp_path / "tied")
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
