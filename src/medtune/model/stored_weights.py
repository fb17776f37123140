"""How the weights of a model's files are stored, whether that can be used, and how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.errors import ModelError, Option
from medtune.model.quantization import FORMATS
from medtune.runtime.terminal import one_line
from medtune.storage.reading import DamagedError, check_type, read_mapping

if TYPE_CHECKING:
    from medtune.config.schema import ModelSection


@dataclass(frozen=True)
class _Quantized:
    quantization_config: dict[str, Any] | None = None


def stored_quantization(path: Path) -> Mapping[str, Any] | None:
    """How the weights in the folder `path` are quantised, as its config.json says; None if they are not.

    Raises ModelError if that file cannot be used.
    """
    try:
        stored: _Quantized = check_type(_Quantized, read_mapping(path / "config.json"))
        return stored.quantization_config
    except DamagedError as error:
        raise ModelError(path, f"its config.json cannot be used ({error})") from None


def check_quantization(path: Path, section: ModelSection) -> None:
    """Raises ModelError if the weights in `path` are stored in a form that `model.quantization` cannot use."""
    stored = stored_quantization(path)
    if stored is None or FORMATS[section.quantization].reads(stored):
        return
    other = next((found.name for found in FORMATS.values() if found.reads(stored)), None)
    if other is None:
        reason = "whose layers medtune cannot dequantise for a backward pass: it trains on NF4 and on 16-bit weights"
        fix: tuple[object, ...] = ("give the 16-bit model",)
    else:
        reason = f"which model.quantization: {section.quantization} cannot use"
        fix = ("give ", Option("set", f"model.quantization={other}"), ", or give the 16-bit model")
    raise ModelError(section.base, f"its weights are stored as {_stored_kind(stored)}, {reason}", fix)


def _stored_kind(stored: Mapping[str, Any]) -> str:
    """What `quantization_config` says, in a few words: its method, and of bitsandbytes' which of them."""
    method = one_line(str(stored.get("quant_method", "quantised")))
    if stored.get("load_in_8bit"):
        return f"{method} (8 bit)"
    kind = stored.get("bnb_4bit_quant_type", "fp4") if stored.get("load_in_4bit") else None
    return f"{method} ({one_line(str(kind)).upper()})" if kind else method


def loading_options(path: Path, section: ModelSection, dtype: str) -> dict[str, Any]:
    """What `from_pretrained` is given so that the weights in `path` come in the format that `section` names.

    Raises ModelError if they are stored in a form that it cannot use.
    """
    check_quantization(path, section)
    storage = FORMATS[section.quantization]
    if stored_quantization(path) is not None:
        return storage.options_for_stored(path, section.base)
    config = storage.loading_config(dtype)
    return {} if config is None else {"quantization_config": config}
