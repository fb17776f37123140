"""What tests of models share."""

import pytest
import torch

from medtune.model import host_store


@pytest.fixture
def plain_memory(monkeypatch):
    """Host memory that no GPU knows of; records what was asked for."""
    asked = []

    def allocate(shape, dtype):
        asked.append((shape, dtype))
        return torch.full(shape, 7, dtype=dtype)

    monkeypatch.setattr(host_store, "page_locked", allocate)
    return asked
