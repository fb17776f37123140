"""Adapters that are not read: each named with the reason, and with what its owner can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftType

from medtune.model import adapter_kinds
from medtune.model.adapter_kinds import how_to_convert, why_unsupported


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal", None])
def test_lora_is_read_whatever_start_left_its_base_alone(start: Any) -> None:
    assert why_unsupported({"peft_type": "LORA", "task_type": "CAUSAL_LM", "init_lora_weights": start}) is None
    assert why_unsupported({}) is None


@pytest.mark.parametrize(
    ("kind", "reason", "fix"),
    [
        ("PREFIX_TUNING", "puts trained vectors before every prompt", "train or fetch a LoRA adapter"),
        ("IA3", "scales activations by trained vectors", "merge_and_unload"),
        ("ADALORA", "scales each direction of its product", "merge_and_unload"),
        ("BOFT", "rotates weights", "merge_and_unload"),
        ("VBLORA", "changes weights in another way than by a low-rank product", "merge_and_unload"),
        ("XLORA", "mixes several adapters again for every token", "train or fetch a LoRA adapter"),
    ],
)
def test_another_method_is_named_with_the_reason_and_a_way_on(kind: str, reason: str, fix: str) -> None:
    """What is no change of weights can be merged into none."""
    found = why_unsupported({"peft_type": kind, "task_type": "CAUSAL_LM"})
    assert found is not None
    assert found[0].startswith(f"{kind}, which {reason}")
    assert found[0].endswith("; medtune reads LoRA, rsLoRA and DoRA")
    assert fix in found[1]


def test_methods_go_by_pefts_names() -> None:
    assert adapter_kinds._METHODS.keys() == {kind.value for kind in PeftType} - {"LORA"}


def test_a_model_that_writes_no_answers_is_refused() -> None:
    found = why_unsupported({"peft_type": "LORA", "task_type": "SEQ_CLS"})
    assert found == ("an adapter for SEQ_CLS, whose model writes no answers", "give one for CAUSAL_LM")


@pytest.mark.parametrize(
    ("start", "name", "fix"),
    [
        ("pissa", "pissa", "path_initial_model_for_weight_conversion"),
        ("pissa_niter_16", "pissa", "path_initial_model_for_weight_conversion"),
        ("lora_ga", "lora_ga", "path_initial_model_for_weight_conversion"),
        ("loftq", "loftq", "give in model.base the model that LoftQ saved with it"),
    ],
)
def test_a_start_that_changed_its_base_is_named_with_the_way_back(start: str, name: str, fix: str) -> None:
    found = why_unsupported({"peft_type": "LORA", "init_lora_weights": start})
    assert found is not None
    assert found[0] == f"started by {name}, which changed its base's weights: it does not fit the untouched base"
    assert fix in found[1]


@pytest.mark.parametrize(
    "stored", [{"peft_type": 7}, {"peft_type": ["IA3"]}, {"task_type": {}, "init_lora_weights": []}]
)
def test_settings_of_another_type_are_nothing_known_against_it(stored: dict[str, Any]) -> None:
    assert why_unsupported(stored) is None


def test_the_line_that_converts_pickled_weights_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    monkeypatch.chdir(tmp_path)
    weights = {"lora_A": torch.arange(6.0).reshape(2, 3).T}  # which safetensors refuses as it lies in memory
    torch.save(weights, "mine.bin")
    code = how_to_convert("mine").partition('python -c "')[2].removesuffix('"')
    exec(code, {})
    assert torch.equal(load_file("mine.safetensors")["lora_A"], weights["lora_A"])
