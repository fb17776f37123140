"""The template for Ollama writes what the model's own template writes, for every family and any number of turns."""

from __future__ import annotations

from datetime import date
from importlib.resources import files

import pytest
from architectures import ARCHITECTURES

from chat_tokenizers import ALL
from go_templates import render, render_like_ollama
from medtune.data.prompts import PromptRenderer
from medtune.errors import ModelError
from medtune.publishing.export.chat_layout import read_layout
from medtune.publishing.export.modelfile import Generation, go_template, modelfile
from medtune.records import QAPair, Turn
from tiny_model import build_tokenizer

# After the published layouts: the system prompt in the last question, a default system prompt, a printed date.
MISTRAL_V3 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' }}{% if loop.last and system is defined %}{{ system + '\\n\\n' }}"
    "{% endif %}{{ m['content'] + '[/INST]' }}{% else %}{{ ' ' + m['content'] | trim + eos_token }}{% endif %}"
    "{% endfor %}"
)
QWEN_25 = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA_31 = (
    "{{ bos_token }}{{ '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + strftime_now('%d %b %Y') }}"
    "{% if messages[0]['role'] == 'system' %}{{ '\\n\\n' + messages[0]['content'] }}{% set messages = messages[1:] %}"
    "{% endif %}{{ '<|eot_id|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>' }}"
    "{{ '\\n\\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
TURNS = ["What causes gout ?", "Uric acid.\nCrystals {{ form }}.", "And {asthma}?", 'Narrow """airways""".', "Why ?"]


def _with(template: str, family: str):
    tokenizer = ALL[family]()
    tokenizer.chat_template = template
    return tokenizer


def _ours(name: str):
    return _with((files("medtune.model.chat_templates") / f"{name}.jinja").read_text(), name)


TOKENIZERS = {
    **ALL,
    "phi3": ARCHITECTURES["Phi 3"].tokenizer,
    "qwen3": ARCHITECTURES["Qwen 3"].tokenizer,
    "mistral v3": lambda: _with(MISTRAL_V3, "mistral"),
    "qwen 2.5": lambda: _with(QWEN_25, "chatml"),
    "llama 3.1": lambda: _with(LLAMA_31, "llama3"),
    "our llama3": lambda: _ours("llama3"),
    "our chatml": lambda: _ours("chatml"),
    "our mistral": lambda: _ours("mistral"),
    "our gemma": lambda: _ours("gemma"),
}


def _chat(count: int) -> QAPair:
    turns = tuple(Turn(("user", "assistant")[place % 2], TURNS[place % 4]) for place in range(2 * count))
    return QAPair("r", "causes", TURNS[4], "", turns=turns)


@pytest.mark.parametrize("system", ["", "Answer {kindly}."])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_ollama_would_write_the_prompts_that_medtune_writes(name: str, system: str) -> None:
    tokenizer = TOKENIZERS[name]()
    renderer = PromptRenderer(tokenizer, system, date(2026, 11, 30))
    bos = tokenizer.bos_token or ""
    template = go_template(read_layout(renderer), bos="")
    shorter = go_template(read_layout(renderer), bos=bos)
    for count in range(6):
        pair = _chat(count)
        (expected,) = renderer.pair_prompts([pair])
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": turn.role, "content": turn.content} for turn in pair.turns]
        messages.append({"role": "user", "content": pair.question})
        written = render_like_ollama(template, messages)
        ids = tokenizer.encode(written, add_special_tokens=False)
        assert tokenizer.decode(ids) == tokenizer.decode(expected)
        assert ids == expected
        assert bos + render_like_ollama(shorter, messages) == written or not written.startswith(bos)


def test_a_modelfile_says_all_that_the_run_did() -> None:
    generation = Generation(("<|eot_id|>", '"end"'), cap=96, context=2048, system_prompt="Be kind.\nBe brief.")
    text = modelfile("./merged", "{{ .System }}\n", generation, ["Not medical advice."])
    assert text == (
        '# Not medical advice.\nFROM ./merged\nTEMPLATE """{{ .System }}\n"""\nSYSTEM """Be kind.\nBe brief."""\n'
        'PARAMETER stop "<|eot_id|>"\nPARAMETER stop """"end""""\n'
        "PARAMETER temperature 0\nPARAMETER repeat_penalty 1\nPARAMETER num_predict 96\nPARAMETER num_ctx 2048\n"
    )
    with pytest.raises(ModelError, match="which a Modelfile cannot quote"):
        modelfile("./merged", "", Generation((), 1, 1, 'a """ b'), [])


def test_braces_and_quotes_of_a_template_stay_text() -> None:
    tokenizer = build_tokenizer()
    template = "{% for m in messages %}{{ '{{ .Q }}' + '\"\"\"' + m['content'] + '<|eot_id|>' }}{% endfor %}"
    tokenizer.chat_template = template
    written = go_template(read_layout(PromptRenderer(tokenizer)), bos="")
    assert '"""' not in written
    assert render_like_ollama(written, [{"role": "user", "content": "a"}]) == '{{ .Q }}"""a<|eot_id|>'


def test_the_reader_of_go_templates_fails_on_what_it_does_not_know() -> None:
    assert render("a{{ if eq .A 1 }}b{{ else if gt .A 2 }}c{{ else }}d{{ end }}", {"A": 3}) == "ac"
    with pytest.raises(AssertionError):
        render("{{ printf .A }}", {"A": 1})
