"""What llama.cpp is told of a model's shape, and the models that it would compute otherwise."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from architectures import ARCHITECTURES

from gguf_twins import TWINS
from gguf_writing import write
from medtune.errors import ModelError
from medtune.publishing.export.gguf_architectures import architecture_of, rope_tensors, window_note
from medtune.publishing.export.gguf_files import model_config


def test_gemma_and_phi_say_what_is_special_about_them(tmp_path: Path) -> None:
    def fields(family: str) -> dict[str, Any]:
        read = write(TWINS[family].save(tmp_path / family), tmp_path / "a.gguf").fields
        return {name.partition(".")[2]: field.contents() for name, field in read.items()}

    second, third, phi = fields("Gemma 2"), fields("Gemma 3"), fields("Phi 3")
    assert (second["attn_logit_softcapping"], second["final_logit_softcapping"]) == (1.5, 3.0)
    assert second["attention.sliding_window"] == third["attention.sliding_window"] == 12
    assert third["attention.sliding_window_pattern"] == [True, False, True]
    assert third["rope.freq_base"] != third["rope.freq_base_swa"]
    assert phi["rope.scaling.original_context_length"] > 0
    assert "attention.sliding_window" in phi


@pytest.mark.parametrize(
    ("family", "changes", "problem"),
    [
        ("SmolLM 3", {}, "smollm3: only llama, mistral, .* are written as GGUF"),
        ("Gemma 2", {}, "scale of attention from the size of a head"),
        ("Qwen 2, windows", {}, "no sliding windows for this family"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    family: str, changes: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    twin = ARCHITECTURES[family]
    replace(twin, options=twin.options | changes).save(tmp_path)
    with pytest.raises(ModelError, match=problem):
        write(tmp_path, tmp_path / "a.gguf")


def test_a_window_that_llama_cpp_leaves_out_is_said(tmp_path: Path) -> None:
    ARCHITECTURES["Mistral, window"].save(tmp_path)
    note = window_note(model_config(tmp_path))
    assert note == "llama.cpp has no sliding window for this family: answers may differ beyond 12 tokens"


def test_long_rope_has_both_lists_of_factors(tmp_path: Path) -> None:
    rope = {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8,
        "original_max_position_embeddings": 128,
    }  # fmt: skip
    twin = ARCHITECTURES["Phi 3"]
    options = twin.options | {"rope_parameters": rope, "original_max_position_embeddings": 128}
    replace(twin, options=options).save(tmp_path)
    reader = write(tmp_path, tmp_path / "a.gguf")
    found = {tensor.name: tensor.data.tolist() for tensor in reader.tensors if "rope_factors" in tensor.name}
    assert found == {"rope_factors_long.weight": [2.0] * 8, "rope_factors_short.weight": [1.0] * 8}
    factor = reader.fields["phi3.rope.scaling.attn_factor"].contents()
    assert factor == pytest.approx(math.sqrt(1 + math.log(4) / math.log(128)))


def shape(**given: Any) -> SimpleNamespace:
    """A configuration of LLaMA's kind."""
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    return SimpleNamespace(**{"model_type": "llama", "rope_parameters": rope, "head_dim": 16} | given)


@pytest.mark.parametrize("rope_type", ["default", "linear", "llama3", "yarn", "longrope"])
def test_positions_that_llama_cpp_scales_too(rope_type: str) -> None:
    assert architecture_of(shape(rope_parameters={"rope_type": rope_type})).permutes


def test_positions_that_llama_cpp_would_not_scale_are_refused() -> None:
    with pytest.raises(ModelError, match=r"llama: llama\.cpp does not scale positions by dynamic"):
        architecture_of(shape(rope_parameters={"full_attention": {"rope_type": "dynamic"}}))


def test_slow_frequencies_alone_are_slowed_down() -> None:
    """LLaMA 3.1's rule: a wavelength past the old context is divided whole, one well within it not at all."""
    rope = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    (factors,) = rope_tensors(shape(rope_parameters=rope, head_dim=128)).values()
    assert len(factors) == 64
    assert factors == sorted(factors)
    wavelengths = [2 * math.pi * 500000.0 ** (place / 64) for place in range(64)]
    for factor, wavelength in zip(factors, wavelengths, strict=True):
        if wavelength < 8192 / 4:
            assert factor == 1
        elif wavelength > 8192:
            assert factor == 8
        else:
            assert 1 < factor < 8
    assert rope_tensors(shape()) == {}


@pytest.mark.parametrize(
    ("given", "is_said"),
    [
        ({"model_type": "mistral", "sliding_window": 12}, True),
        ({"model_type": "phi3", "sliding_window": 99}, True),
        ({"model_type": "mistral", "sliding_window": 100}, False),  # as long as the context
        ({"model_type": "mistral", "sliding_window": None}, False),
        ({"model_type": "gemma2", "sliding_window": 12}, False),  # which llama.cpp computes
    ],
)
def test_a_window_is_spoken_of_where_it_is_left_out_alone(given: dict[str, Any], is_said: bool) -> None:
    assert (window_note(shape(max_position_embeddings=100, **given)) is not None) == is_said
