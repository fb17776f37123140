"""Which template a tokenizer writes with, and those that medtune brings for bases without one."""

import pytest

from chat_tokenizers import CHATML, GEMMA, mistral
from medtune.config.schema import ModelSection
from medtune.data.prompts import PromptRenderer
from medtune.errors import ModelError
from medtune.model.chat_templates import TEMPLATE_NAME, give_template, known_templates
from medtune.model.demo_model import CHAT_TEMPLATE
from medtune.records import QAPair
from tiny_model import build_tokenizer

PHI3_TOKENS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
PHI3 = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# The same layouts as models' tokenizers write them.
LAYOUTS = {
    "chatml": (["<|im_start|>", "<|im_end|>"], CHATML, {"eos_token": "<|im_end|>"}),
    "gemma": (["<bos>", "<start_of_turn>", "<end_of_turn>"], GEMMA, {"bos_token": "<bos>"}),
    "llama3": (None, CHAT_TEMPLATE, {}),
    "mistral": (["<s>", "</s>", "[INST]", "[/INST]"], None, {"bos_token": "<s>", "eos_token": "</s>"}),
    "phi3": (PHI3_TOKENS, PHI3, {"eos_token": "<|end|>"}),
}
PAIR = QAPair("1", "", "What causes gout ?", "Uric acid.")


def section(template=None, adapter=None):
    return ModelSection(base="somebody/base", chat_template=template, adapter=adapter)


def test_the_known_names_are_those_of_the_reference():
    from medtune.config.schema import ModelSection

    described = ModelSection.model_fields["chat_template"].description
    assert all(f"`{name}`" in described for name in known_templates())
    assert set(known_templates()) == {"alpaca", *LAYOUTS}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("system", ["", "Be kind."])
def test_a_base_without_a_template_takes_a_known_one(name, system):
    """The bases of https://github.com/huggingface/transformers/issues/33246."""
    tokens, theirs, names = LAYOUTS[name]
    tokenizer = build_tokenizer(tokens, None, **names)
    assert give_template(tokenizer, section(name)) == f"{name}, as medtune writes it"
    row = PromptRenderer(tokenizer, system).encode_pairs([PAIR])[0]
    expected = build_tokenizer(tokens, theirs or mistral().chat_template, **names)
    assert row == PromptRenderer(expected, system).encode_pairs([PAIR])[0]


def test_alpaca_needs_no_tokens_but_the_end():
    tokenizer = build_tokenizer(["</s>"], None, eos_token="</s>")
    give_template(tokenizer, section("alpaca"))
    row = PromptRenderer(tokenizer, "Be kind.").encode_pairs([PAIR])[0]
    text = "Be kind.\n\n### Instruction:\nWhat causes gout ?\n\n### Response:\nUric acid.</s>"
    assert tokenizer.decode(row.input_ids) == text
    assert tokenizer.decode(row.input_ids[: row.prompt_length]).endswith("### Response:\n")


def test_a_known_template_whose_end_token_the_base_lacks_is_refused():
    tokenizer = build_tokenizer(["</s>"], None, eos_token="</s>")
    give_template(tokenizer, section("chatml"))
    problem = r"puts no end token behind an answer \(it puts '<\|im_end\|>\\n'\).*set model\.chat_template=NAME"
    with pytest.raises(ModelError, match=problem):
        PromptRenderer(tokenizer).prompt_ids("Why ?")


def test_of_several_templates_the_default_is_taken_or_the_one_that_is_named():
    tokenizer = build_tokenizer(chat_template={"tool_use": "tools", "default": CHAT_TEMPLATE})
    assert give_template(tokenizer, section()) == "default, one of tool_use, default"
    assert tokenizer.chat_template == CHAT_TEMPLATE
    tokenizer = build_tokenizer(chat_template={"tool_use": "tools", "rag": CHAT_TEMPLATE})
    assert give_template(tokenizer, section("rag")) == "rag, one of tool_use, rag"
    assert tokenizer.chat_template == CHAT_TEMPLATE


def test_the_only_template_is_taken_without_a_word():
    tokenizer = build_tokenizer()
    assert give_template(tokenizer, section()) == ""
    assert tokenizer.chat_template == CHAT_TEMPLATE


@pytest.mark.parametrize("name", ["mine.jinja", "chat_template.json"])
def test_a_file_overrules_the_tokenizers_own(tmp_path, name):
    import json

    file = tmp_path / name
    file.write_text(json.dumps({"chat_template": CHATML}) if name.endswith("json") else CHATML, encoding="utf-8")
    tokenizer = build_tokenizer()
    assert give_template(tokenizer, section(str(file))) == f"from {name}"
    assert tokenizer.chat_template == CHATML


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("none.jinja", None, "no such template and no such file; give a jinja file or one of alpaca, chatml"),
        ("empty.jinja", b" \n", "holds no chat template"),
        ("bytes.jinja", b"\xff\xfe\x00", "cannot be used as a chat template"),
        ("list.json", b"[1]", "holds no chat template"),
        ("torn.json", b"{", "cannot be used as a chat template"),
    ],
)
def test_files_that_hold_no_template_are_refused(tmp_path, name, content, problem):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=problem):
        give_template(build_tokenizer(), section(str(tmp_path / name)))


def save_adapter(folder, *, template=None, settings=None):
    """As `resolve_adapter` wants it, with one matrix."""
    import json

    import torch
    from safetensors.torch import save_file

    save_file({"base_model.model.q_proj.lora_A.weight": torch.zeros(1, 1)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "target_modules": ["q_proj"]}))
    if template is not None:
        (folder / TEMPLATE_NAME).write_text(template)
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return section(adapter=str(folder))


@pytest.mark.parametrize("where", [{"template": CHATML}, {"settings": {"chat_template": CHATML}}])
def test_a_base_without_a_template_takes_the_adapters(tmp_path, where):
    tokenizer = build_tokenizer(chat_template=None)
    assert give_template(tokenizer, save_adapter(tmp_path, **where)) == "the adapter's, since the base has none"
    assert tokenizer.chat_template == CHATML


@pytest.mark.parametrize("where", [{}, {"settings": {}}])
def test_neither_has_a_template(tmp_path, where):
    tokenizer = build_tokenizer(chat_template=None)
    assert give_template(tokenizer, save_adapter(tmp_path, **where)) == ""
    problem = r"no chat template; use the model's chat \(instruct\) variant, or give it a template: --set model\.chat_t"
    with pytest.raises(ModelError, match=problem):
        PromptRenderer(tokenizer).prompt_ids("Why ?")
