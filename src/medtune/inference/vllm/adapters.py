"""Which adapters vLLM serves beside a base, and what it has to be told of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medtune.errors import ModelError, Text

# The ranks that vLLM 0.33 has kernels for (vllm/config/lora.py).
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def require_served(settings: Mapping[str, Any], adapter: Text, fix: Text) -> None:
    """Raises ModelError for an adapter with parts, by its settings, that vLLM does not serve beside a base."""
    kinds = {"use_dora": "DoRA", "modules_to_save": "layers trained whole", "trainable_token_indices": "trained tokens"}
    if found := [kind for key, kind in kinds.items() if settings.get(key)]:
        raise ModelError(adapter, f"has {', '.join(found)}, which vLLM does not serve beside a base", fix)


def largest_rank(settings: Mapping[str, Any]) -> int:
    """The largest rank of an adapter's layers, by its settings."""
    ranks: list[int] = [settings.get("r", 8), *settings.get("rank_pattern", {}).values()]
    return max(ranks)


def told_rank(rank: int) -> int | None:
    """What vLLM has to be told for an adapter of this rank; None if it takes none as large."""
    return next((allowed for allowed in LORA_RANKS if allowed >= rank), None)


def served_rank(settings: Mapping[str, Any], adapter: Text, fix: Text) -> int:
    """What vLLM has to be told of an adapter, by its settings. Raises ModelError for one that it does not serve."""
    require_served(settings, adapter, fix)
    rank = largest_rank(settings)
    if (told := told_rank(rank)) is None:
        raise ModelError(adapter, f"has rank {rank}, which vLLM does not serve beside a base", fix)
    return told


def lora_arguments(adapter: Path | str, rank: int, *, name: str = "tuned") -> list[str]:
    """What `vllm serve` is called with for an adapter to be served by this name; `rank` is what it has to be told."""
    return ["--enable-lora", "--lora-modules", f"{name}={adapter}", "--max-lora-rank", str(rank)]
