"""What tests of models share."""

import pytest
import torch

from medtune.model import host_embeddings, host_store


@pytest.fixture
def plain_memory(monkeypatch):
    """Host memory that no GPU knows of; records what was asked for."""
    asked = []

    def allocate(shape, dtype):
        asked.append((shape, dtype))
        return torch.full(shape, 7, dtype=dtype)

    for module in (host_store, host_embeddings):
        monkeypatch.setattr(module, "page_locked", allocate)
    return asked
