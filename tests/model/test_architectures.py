"""Every family computes what transformers' own eager attention and PEFT compute: losses, gradients, answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, Architecture
from greedy_reference import generate_answers
from packed_models import error, gradients_of
from torch.nn.functional import cross_entropy

from medtune.config.schema import ModelSection
from medtune.config.training import LoraSection
from medtune.data.prompts import PromptRenderer
from medtune.data.training_rows import encode_for_training, require_sound_rows
from medtune.model.adapters import attach_new_adapter
from medtune.model.answer_loss import add_answer_loss
from medtune.model.fused.layers import fuse_layers
from medtune.model.fused.lora_function import fuse_adapters
from medtune.model.loaded import end_token_ids, load_tokenizer, set_pad_token
from medtune.model.loading import ModelFiles, load_base_model
from medtune.model.packing import pack_rows
from medtune.model.quantization import FORMATS
from medtune.records import IGNORED, QAPair

# Rows of different lengths, all longer than the windows.
PAIRS = [
    QAPair("0", "causes", "What causes gout ?", "Uric acid builds up in the blood. " * 3),
    QAPair("1", "symptoms", "What are the symptoms of asthma ?", "Wheezing."),
    QAPair("2", "treatment", "How to treat a migraine that comes at night ?", "Rest in a dark room, and drink water."),
]
FUSED = {"LLaMA 3", "LLaMA 3.1", "LLaMA 3.2", "Qwen 2.5", "Qwen 2, windows", "Mistral", "Mistral, window", "SmolLM 3"}


class Family:
    """One architecture on disk, its rows, and its models: medtune's, and the plain one with the same adapter."""

    def __init__(self, name: str, architecture: Architecture, folder: Path) -> None:
        self.name, self.architecture, self.folder = name, architecture, folder
        self.renderer = PromptRenderer(load_tokenizer(folder), "Answer clearly.")
        self.rows = encode_for_training(self.renderer, PAIRS, max_length=256, overlong="cut").rows
        require_sound_rows(self.rows, self.renderer)

    def ours(self, quantization: str = "none") -> Any:
        section = ModelSection(base=str(self.folder), quantization=quantization)
        return load_base_model(ModelFiles(self.folder, None), section, device="cpu", dtype="float32")

    def plain(self, quantization: str = "none") -> Any:
        from transformers import AutoModelForCausalLM

        config = FORMATS[quantization].loading_config("float32")
        options = {} if config is None else {"quantization_config": config}
        options |= {"dtype": torch.float32, "attn_implementation": "eager", "device_map": {"": "cpu"}}
        model = AutoModelForCausalLM.from_pretrained(self.folder, **options)
        return model.requires_grad_(False).eval()

    def adapt(self, model: Any) -> Any:
        """With the adapter that every copy gets; its B are not zero, which would hide half of the mathematics."""
        model = attach_new_adapter(model, LoraSection(rank=4, alpha=8, targets=self.architecture.targets), seed=0)
        generator = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
        return model


@pytest.fixture(scope="module", params=ARCHITECTURES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    architecture = ARCHITECTURES[request.param]
    return Family(request.param, architecture, architecture.save(tmp_path_factory.mktemp("model")))


def row_by_row(model: Any, rows: Any) -> torch.Tensor:
    """The mean loss of all answer tokens, each row a plain call of its own."""
    losses = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row.input_ids]), use_cache=False).logits[0, :-1].float()
        losses.append(cross_entropy(logits, torch.tensor(row.labels[1:]), ignore_index=IGNORED, reduction="sum"))
    return torch.stack(losses).sum() / sum(label != IGNORED for row in rows for label in row.labels[1:])


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_training_step_is_that_of_the_plain_model(family: Family, quantization: str):
    """Packed, fused as far as the structure allows, with answers' losses alone."""
    plain, model = family.adapt(family.plain(quantization)), family.adapt(family.ours(quantization))
    # In evaluation mode bitsandbytes would round the products of some CPUs to bfloat16.
    expected_loss, expected = gradients_of(plain.train(), row_by_row(plain, family.rows))
    add_answer_loss(model.get_base_model())
    assert bool(fuse_layers(model)) == (family.name in FUSED)
    if family.name not in FUSED:
        assert fuse_adapters(model) == 3 * len(family.architecture.targets)
    batch = pack_rows(family.rows)
    loss, gradients = gradients_of(model, model(**batch).mean())
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert error(gradients, expected) < 1e-4


def test_answers_are_those_of_generate(family: Family):
    """A batch of unlike prompts, and the plain model's own `generate` one by one."""
    plain, model = family.adapt(family.plain()).eval(), family.adapt(family.ours()).eval()
    tokenizer = family.renderer.tokenizer
    ends = end_token_ids(family.renderer, plain)
    set_pad_token(tokenizer, ends, plain.get_input_embeddings().num_embeddings)
    prompts = [family.renderer.prompt_ids(pair.question) for pair in PAIRS]
    options = {"end_token_ids": ends, "max_new_tokens": 24, "batch_size": 3}
    answers = generate_answers(model, tokenizer, prompts, **options)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        written = plain.generate(
            ids, attention_mask=mask, do_sample=False, max_new_tokens=24, eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
        )[0, len(prompt) :].tolist()  # fmt: skip
        body = written[:-1] if written[-1] in ends else written
        assert answer.text == tokenizer.decode(body, skip_special_tokens=True).strip()
        assert answer.new_tokens == len(written)


def test_what_is_special_about_a_family_matters(family: Family):
    """Otherwise the tests above would not notice that it was left out."""
    from transformers import AutoConfig, AutoModelForCausalLM

    special = {
        "Gemma 2": {"attn_logit_softcapping": None}, "Gemma 3": {"sliding_window": 512},
        "Qwen 2, windows": {"sliding_window": 512}, "Mistral, window": {"sliding_window": 512},
        "Phi 3, window": {"sliding_window": 512},
        "SmolLM 3": {"no_rope_layers": [1, 1, 1]},
        "LLaMA 3.1": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    }  # fmt: skip
    if family.name not in special:
        return
    config = AutoConfig.from_pretrained(family.folder)
    for name, value in special[family.name].items():
        setattr(config, name, value)
    other = AutoModelForCausalLM.from_pretrained(
        family.folder, config=config, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        losses = [float(row_by_row(model, family.rows)) for model in (family.plain(), other)]
    assert abs(losses[0] - losses[1]) > 1e-3


def test_the_renderer_copes_with_its_template(family: Family):
    tokenizer, prompt = family.renderer.tokenizer, family.renderer.prompt_ids("What is gout ?")
    text = tokenizer.decode(prompt)
    assert text.count("Answer clearly.") == text.count("What is gout ?") == 1
    assert text.index("Answer clearly.") < text.index("What is gout ?")
    row = family.rows[1]
    counted = [label for label in row.labels if label != IGNORED]
    assert counted[-1] == family.renderer.end_token_id
    assert tokenizer.decode(counted[:-1]).strip().endswith("Wheezing.")
