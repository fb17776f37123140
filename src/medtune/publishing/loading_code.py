"""The Python that loads a published model and asks it a question, as its card shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medtune.data.chat_template import SYSTEM_PLACE, read_chat_template
from medtune.model.loaded import load_tokenizer
from medtune.model.loading import DEMO_MODEL
from medtune.model.quantization import StorageFormat
from medtune.run_dir.directory import RunDir

QUESTION = "What are the symptoms of gout ?"
_ANSWER = """\
messages = {messages}
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
output = model.generate(**inputs.to(model.device), max_new_tokens={max_new_tokens}, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""


@dataclass(frozen=True, slots=True)
class Target:
    """What is loaded: a repository or folder, onto `base` where PEFT does not find that by itself."""

    location: str
    merged: bool
    base: str | None
    storage: StorageFormat
    dtype: str


def loading_code(target: Target, messages: list[dict[str, str]], max_new_tokens: int) -> str:
    """Python that prints the answer to one question, greedily."""
    quantization = [] if target.merged else _quantization(target.storage.settings(target.dtype))
    names = "AutoTokenizer, BitsAndBytesConfig" if quantization else "AutoTokenizer"
    plain = target.merged or target.base is not None
    lines = ["import torch"]
    if not target.merged:
        lines.append(f"from peft import {'PeftModel' if plain else 'AutoPeftModelForCausalLM'}")
    lines.append(f"from transformers import {'AutoModelForCausalLM, ' if plain else ''}{names}")
    if target.base == DEMO_MODEL and not target.merged:
        lines.append("from medtune.model.demo_model import build_demo_model")
    lines += ["", *quantization]
    options = (
        f'dtype=torch.{target.dtype}, device_map="auto"{", quantization_config=quantization" if quantization else ""}'
    )
    lines.append(f"tokenizer = AutoTokenizer.from_pretrained({_literal(target.location)})")
    if target.merged:
        lines.append(f"model = AutoModelForCausalLM.from_pretrained({_literal(target.location)}, {options})")
    elif target.base is None:
        lines.append(f"model = AutoPeftModelForCausalLM.from_pretrained({_literal(target.location)}, {options})")
    else:
        base = "build_demo_model()" if target.base == DEMO_MODEL else _literal(target.base)
        note = "" if target.base == DEMO_MODEL else "  # the folder that holds the base model"
        lines += [
            f"base = {base}{note}",
            f"model = AutoModelForCausalLM.from_pretrained(base, {options})",
            f"model = PeftModel.from_pretrained(model, {_literal(target.location)})",
        ]
    return "\n".join(lines) + "\n" + _ANSWER.format(messages=_literal(messages), max_new_tokens=max_new_tokens)


def example_messages(run: RunDir) -> list[dict[str, str]]:
    """A question as the run put it to the model: with its system line, where the chat template puts it."""
    system = run.config.data.system_prompt.strip()
    if not system:
        return [{"role": "user", "content": QUESTION}]
    template = read_chat_template(
        tokenizer := load_tokenizer(run.adapter_dir), with_system=True, encode=_encoder(tokenizer)
    )
    if template.system_in_question:
        return [{"role": "user", "content": template.system_in_question.replace(SYSTEM_PLACE, system) + QUESTION}]
    return [{"role": "system", "content": system}, {"role": "user", "content": QUESTION}]


def _quantization(settings: Mapping[str, Any]) -> list[str]:
    if not settings:
        return []
    lines = [f"    {name}={_argument(name, value)}," for name, value in settings.items()]
    return ["quantization = BitsAndBytesConfig(", *lines, ")"]


def _argument(name: str, value: Any) -> str:
    if name.endswith("_dtype"):
        return f"torch.{value}"
    return _literal(value) if isinstance(value, str) else repr(value)


def _literal(value: Any) -> str:
    """A text, or a list of mappings of texts, in Python and in one line."""
    return json.dumps(value, ensure_ascii=False)


def _encoder(tokenizer: Any) -> Any:
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
