"""llama.cpp itself reads what is exported: the same tokens, BOS once, the same logits, the same greedy answers.

Optional: MEDTUNE_LLAMA_CPP_PYTHON names a Python that has llama_cpp (`pip install llama-cpp-python` compiles it).
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from merge_checks import save_adapter

from gguf_twins import (
    GPT_4O,
    LLAMA_3,
    QWEN_2,
    TEKKEN,
    TWINS,
    build_sentencepiece_twin,
    build_stripping_tokenizer,
    splitting_by,
)
from go_templates import render_like_ollama
from medtune.data.prompts import PromptRenderer
from medtune.model.loaded import load_tokenizer
from medtune.publishing.export.chat_layout import read_layout
from medtune.publishing.export.gguf_adapters import write_adapter
from medtune.publishing.export.gguf_files import Label, plan_gguf, write_gguf
from medtune.publishing.export.modelfile import go_template

PYTHON = os.environ.get("MEDTUNE_LLAMA_CPP_PYTHON")
pytestmark = [
    pytest.mark.skipif(PYTHON is None, reason="needs MEDTUNE_LLAMA_CPP_PYTHON, a Python with llama_cpp"),
    pytest.mark.slow,
]
LABEL = Label("tiny", "owner/base", "apache-2.0", "Not medical advice.")
_PARTS = [
    "What causes gout ?", "été naïve Ünïcödé", "日本語のテキスト", "Привет, мир", "مرحبا", "😀👩\u200d⚕️🏽",
    "123 4567 3.14 1,000", "  two  blanks", "tab\tand\nline\r\nbreaks\n\n\n", "it's we'll I'VE DON'T", "a_b-c/d\\e",
    "<|eot_id|>", "</s>", "<s>", "\u200b\u00a0", "HTTPServer camelCase ALLCAPS", "((())) [[]] {{}}",
    "…—\u2013“”", "mg/kg·d⁻¹ µg ½ ²", "\U0001f9ec\u0301",
]  # fmt: skip
TEXTS = [
    *_PARTS,
    *(f"{left} {right}" for left in _PARTS[:9] for right in _PARTS[4:14]),
    *(part * 3 for part in _PARTS),
    *(f"{part}\n" for part in _PARTS),
]


def read(model: Path, **asked: Any) -> tuple[dict[str, Any], list[np.ndarray]]:
    """What llama.cpp says, and its logits of each prompt."""
    logits = model.with_suffix(".npz")
    request = {
        "model": str(model), "texts": [], "prompts": [], "ids": [], "new_tokens": 0, "end_tokens": [],
        "logits": str(logits), **asked,
    }  # fmt: skip
    script = Path(__file__).with_name("llama_cpp_reader.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(PYTHON), str(script)], input=json.dumps(request), capture_output=True, text=True, timeout=500,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    arrays = list(np.load(logits).values()) if logits.exists() else []
    return json.loads(done.stdout.splitlines()[-1]), arrays


def write(folder: Path, file: Path, dtype: Any = "f32", tokenizer: Any = None) -> Any:
    tokenizer = tokenizer or load_tokenizer(folder)
    renderer = PromptRenderer(tokenizer, "Answer kindly.")
    adds_bos = tokenizer.bos_token_id is not None and renderer.prompt_ids("?")[0] == tokenizer.bos_token_id
    plan = plan_gguf(folder, tokenizer, dtype, end_token_id=renderer.end_token_id, adds_bos=adds_bos)
    write_gguf(plan, file, LABEL)
    return renderer


def reference(folder: Path, prompts: list[list[int]], new_tokens: int, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """The model in transformers, its logits and greedy tokens, computed in float32 from weights rounded to `dtype`."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.to(dtype).float()
    logits, answers = [], []
    for ids in prompts:
        with torch.no_grad():
            logits.append(model(torch.tensor([ids])).logits[0].numpy())
            whole = model.generate(
                torch.tensor([ids]), do_sample=False, max_new_tokens=new_tokens, use_cache=True, repetition_penalty=1.0
            )
        answers.append(whole[0, len(ids) :].tolist())
    return model, logits, answers


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("f32", torch.float32), ("f16", torch.float16)])
def test_the_stand_in_answers_alike(shared_data: Path, tmp_path: Path, dtype: str, torch_dtype: torch.dtype) -> None:
    folder = shared_data.parent / "models" / "standin-16m"
    if not folder.is_dir():
        pytest.skip("needs the stand-in model beside the data")
    renderer = write(folder, tmp_path / "a.gguf", dtype)
    questions = ["What causes gout ?", "What are the symptoms of asthma ?", "How to prevent eczema ?", "What is acne ?"]
    prompts = [renderer.prompt_ids(question) for question in questions]
    template = go_template(read_layout(renderer), bos=renderer.tokenizer.bos_token)
    written = [
        render_like_ollama(template, [{"role": "system", "content": "Answer kindly."}, {"role": "user", "content": q}])
        for q in questions
    ]
    found, logits = read(
        tmp_path / "a.gguf", texts=TEXTS, prompts=written, ids=prompts, new_tokens=64, end_tokens=[5]
    )  # fmt: skip
    expected = [renderer.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) for text in TEXTS]
    assert len(TEXTS) > 100
    assert found["tokenized"] == expected
    assert found["prompts"] == prompts  # BOS once, which the reader adds
    assert [ids.count(0) for ids in found["prompts"]] == [1] * 4
    model, true, answers = reference(folder, prompts, 64, torch_dtype)
    worst = max(float(np.abs(a - b).max()) for a, b in zip(logits, true, strict=True))
    print(f"{dtype}: logits differ by at most {worst:.2g}; {sum(map(len, answers))} greedy tokens")
    assert worst < (1e-3 if dtype == "f32" else 0.02)
    for prompt, ours, theirs in zip(prompts, answers, found["answers"], strict=True):
        same = next((at for at, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
        if same is None:
            assert ours == theirs
            continue
        # With f16 weights llama.cpp rounds what it multiplies them by, too: only what is as good as equal may swap.
        assert dtype == "f16"
        with torch.no_grad():
            last = model(torch.tensor([prompt + ours[:same]])).logits[0, -1]
        gap = float(last[ours[same]] - last[theirs[same]])
        print(f"f16: another token after {same}, whose logit is {gap:.2g} below the best")
        assert gap < 2 * worst


@pytest.mark.parametrize("family", TWINS)
def test_twins_of_every_family_compute_alike(family: str, tmp_path: Path) -> None:
    folder = TWINS[family].save(tmp_path / "model")
    renderer = write(folder, tmp_path / "a.gguf")
    rng = np.random.default_rng(0)
    prompts = [rng.integers(10, 390, 40).tolist(), renderer.prompt_ids("What causes gout ?")]
    found, logits = read(tmp_path / "a.gguf", ids=prompts, new_tokens=24, end_tokens=[renderer.end_token_id])
    _, true, answers = reference(folder, prompts, 24, torch.float32)
    worst = max(float(np.abs(a - b).max()) for a, b in zip(logits, true, strict=True))
    print(f"{family}: logits differ by at most {worst:.2g} of {max(float(np.abs(a).max()) for a in true):.3g}")
    assert worst < 2e-3
    length = min(len(found["answers"][0]), len(answers[0]))
    assert found["answers"][0][:length] == answers[0][:length]


@pytest.mark.parametrize("family", ["LLaMA 3", "Qwen 3", "Phi 3"])
def test_an_adapter_computes_what_its_merge_does(family: str, tmp_path: Path) -> None:
    from merge_checks import by_peft

    base = TWINS[family].save(tmp_path / "model")
    targets = list(ARCHITECTURES[family].targets)
    adapter = save_adapter(
        base, tmp_path / "adapter", target_modules=targets, use_rslora=True, rank_pattern={"o_proj": 8}
    )
    write(base, tmp_path / "a.gguf")
    write_adapter(base, adapter, tmp_path / "lora.gguf", LABEL)
    ids = list(range(20, 60))
    _, (alone,) = read(tmp_path / "a.gguf", ids=[ids])
    _, (logits,) = read(tmp_path / "a.gguf", lora=str(tmp_path / "lora.gguf"), ids=[ids])
    with torch.no_grad():
        true = by_peft(base, adapter)(torch.tensor([ids])).logits[0].numpy()
    found, without = (float(np.abs(values - true).max()) for values in (logits, alone))
    print(f"{family}: logits differ by at most {found:.2g}, without the adapter by {without:.2g}")
    assert found < 2e-3 < without


TOKENIZERS = {
    "llama-bpe": lambda: splitting_by(LLAMA_3, whole_words=True),
    "dbrx": lambda: splitting_by(LLAMA_3),
    "qwen2": lambda: splitting_by(QWEN_2),
    "gpt-4o": lambda: splitting_by(GPT_4O),
    "tekken": lambda: splitting_by(TEKKEN, whole_words=True),
    "sentencepiece": lambda: build_sentencepiece_twin(prepends=True),
    "sentencepiece without a blank": lambda: build_sentencepiece_twin(prepends=False),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers_of_every_rule_split_alike(name: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[name]()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    options = TWINS["LLaMA 3"].options
    folder = replace(TWINS["LLaMA 3"], options=options, tokenizer=lambda: tokenizer).save(tmp_path / "model")
    write(folder, tmp_path / "a.gguf")
    found, _ = read(tmp_path / "a.gguf", texts=TEXTS)
    expected = [tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True) for text in TEXTS]
    wrong = [
        (text, ours, theirs)
        for text, ours, theirs in zip(TEXTS, expected, found["tokenized"], strict=True)
        if ours != theirs
    ]
    assert not wrong, f"{len(wrong)} of {len(TEXTS)}: {wrong[:2]}"


def test_phi_3_s_special_tokens_take_the_line_break_behind_them(tmp_path: Path) -> None:
    folder = replace(TWINS["Phi 3"], tokenizer=build_stripping_tokenizer).save(tmp_path / "model")
    renderer = write(folder, tmp_path / "a.gguf")
    prompt = "<|system|>\nAnswer kindly.<|end|>\n<|user|>\nWhat causes gout ?<|end|>\n<|assistant|>\n"
    found, _ = read(tmp_path / "a.gguf", prompts=[prompt])
    assert found["prompts"] == [renderer.prompt_ids("What causes gout ?")]
