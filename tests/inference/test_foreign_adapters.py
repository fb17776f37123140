"""Anybody's adapter, asked and evaluated: PEFT's answers and losses, with the adapter's own tokenizer and tokens."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from medtune.config.schema import Config
from medtune.data.training_rows import encode_for_training
from medtune.inference.chat import Chat, ask
from medtune.inference.predictions import ask_rows
from medtune.model.adapters import adapter_config, attach_adapter, resolve_adapter, say_other_base
from medtune.model.loaded import load_model
from medtune.records import QAPair
from medtune.run_dir.partial_results import PartialResults
from tiny_model import Tiny, build_tokenizer

PAIRS = [QAPair(f"row{n}", "causes", f"What causes {'gout ' * n}?", "Uric acid.") for n in range(1, 4)]
SHOUTED = (
    "{% for m in messages %}<|start_header_id|>{{ m['role'] | upper }}<|end_header_id|>\n{{ m['content'] | trim }}"
)
SHOUTED += (
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>ASSISTANT<|end_header_id|>\n{% endif %}"
)


def whole(tiny: Tiny):
    return AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32)


def save_adapter(tiny: Tiny, folder: Path, *, rows: int | None = None, **settings) -> Path:
    """A random adapter as PEFT saves it, on a base with as many tokens as `rows`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = whole(tiny)
        if rows is not None:
            model.resize_token_embeddings(rows, mean_resizing=False)
        options = {"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM", **settings}
        model = get_peft_model(model, LoraConfig(**options))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(std=0.1)
    model.save_pretrained(folder, save_embedding_layers=rows is not None)
    return folder


def config_of(tiny: Tiny, adapter: Path) -> Config:
    model = {"base": str(tiny.path), "quantization": "none", "dtype": "float32", "adapter": str(adapter)}
    return Config.model_validate(
        {"model": model, "data": {"source": "x"}, "generation": {"max_new_tokens": 6, "batch_size": 2}}
    )


KINDS = {
    "a head": {"target_modules": ["q_proj", "lm_head"]},
    "dora": {"use_dora": True},
    "trained tokens": {"trainable_token_indices": [5, 9, 11]},
    "whole embeddings and head": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "a norm": {"modules_to_save": ["norm", "input_layernorm"]},
    "patterns": {"rank_pattern": {r"layers\.1\..*": 2}, "alpha_pattern": {r".*\.down_proj": 30.0}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_answers_and_losses_are_pefts(tiny, tmp_path, kind):
    adapter = save_adapter(tiny, tmp_path / "adapter", **KINDS[kind])
    config = config_of(tiny, adapter)
    loaded = load_model(config, for_training=False)
    loaded = replace(loaded, model=attach_adapter(loaded.model, resolve_adapter(str(adapter)), trainable=False))
    found = ask_rows(loaded, PAIRS, config=config, partial=PartialResults(tmp_path / "partial.jsonl", {})).predicted()
    theirs = PeftModel.from_pretrained(whole(tiny), adapter).eval()
    encoded = encode_for_training(loaded.renderer, PAIRS, max_length=512, overlong="cut").rows
    for pair, row, one in zip(PAIRS, encoded, found.predictions, strict=True):
        with torch.no_grad():
            logits = theirs(torch.tensor([row.input_ids])).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row.labels[1:]), reduction="sum").item()
            prompt = torch.tensor([loaded.renderer.prompt_ids(pair.question)])
            written = theirs.generate(prompt, max_new_tokens=6, do_sample=False, eos_token_id=5, pad_token_id=2)
        text = loaded.renderer.tokenizer.decode(written[0, prompt.shape[1] :], skip_special_tokens=True)
        assert one.reference_nll == pytest.approx(loss, rel=1e-5)
        assert one.prediction == text.strip()


def test_an_adapter_brings_its_template_and_its_tokens(tiny, tmp_path, capsys):
    rows = len(tiny.tokenizer) + 1
    adapter = save_adapter(tiny, tmp_path / "adapter", rows=rows)
    tokenizer = build_tokenizer(chat_template=SHOUTED)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    tokenizer.save_pretrained(adapter)
    loaded = load_model(config_of(tiny, adapter), for_training=False)
    said = capsys.readouterr().err
    assert "tokenizer and chat template: the adapter's own, not the base's" in said
    assert f"embeddings: {rows} rows, as the adapter adapter brings them" in said
    assert loaded.renderer.tokenizer.chat_template == SHOUTED
    assert "<|new|>" in loaded.renderer.tokenizer.get_vocab()
    # A template by itself, as newer releases of transformers save one.
    (adapter / "tokenizer.json").unlink()
    (adapter / "tokenizer_config.json").unlink()
    assert load_model(config_of(tiny, adapter), for_training=False).renderer.tokenizer.chat_template == SHOUTED
    assert "chat template: the adapter's own, not the base's" in capsys.readouterr().err.splitlines()


def test_a_tokenizer_that_is_the_bases_is_not_spoken_of(tiny, tmp_path, capsys):
    adapter = save_adapter(tiny, tmp_path / "adapter")
    tiny.tokenizer.save_pretrained(adapter)
    load_model(config_of(tiny, adapter), for_training=False)
    assert "the adapter's own" not in capsys.readouterr().err


def test_a_bare_adapter_is_asked_with_what_it_brings(tiny, tmp_path, capsys):
    adapter = save_adapter(tiny, tmp_path / "adapter", rows=len(tiny.tokenizer) + 3)
    build_tokenizer(chat_template=SHOUTED).save_pretrained(adapter)
    (adapter / "medtune.json").write_text(json.dumps({"quantization": "none", "max_new_tokens": 4}))
    assert adapter_config(adapter).model.adapter == str(adapter)
    out = io.StringIO()
    ask(str(adapter), ["What causes gout ?"], use_adapter=True, out=out)
    said = capsys.readouterr().err
    assert "chat template: the adapter's own, not the base's" in said
    assert "it brings embeddings, which take the place of the base's, also where it is left out" in said
    assert Chat.open(str(adapter)).model.get_input_embeddings().weight.shape[0] == len(tiny.tokenizer) + 3


def test_another_base_than_the_adapter_names_is_told(tiny, tmp_path, capsys):
    adapter = save_adapter(tiny, tmp_path / "adapter")
    capsys.readouterr()
    say_other_base(adapter, str(tiny.path))
    say_other_base(adapter, f"{tiny.path}/")
    assert capsys.readouterr().err == ""
    copy = shutil.copytree(tiny.path, tmp_path / "copy")
    say_other_base(adapter, str(copy))
    assert capsys.readouterr().err.startswith(f"adapter: made on {tiny.path}, and put on {copy}; with other weights")
