"""What vLLM needs beside a model or an adapter: its chat template, its end tokens, and how it is started.

vLLM takes its defaults for sampling from `generation_config.json` of the folder named by `--generation-config`.
"""

import json
import shlex
from pathlib import Path

from medtune.errors import Command
from medtune.inference.vllm.adapters import lora_arguments, served_rank
from medtune.model.adapter_files import CONFIG_NAME
from medtune.publishing.export.subject import Subject
from medtune.storage.reading import read_mapping
from medtune.storage.writing import replacing_file

TEMPLATE_NAME, GENERATION_NAME = "chat_template.jinja", "generation_config.json"


def write_serving_files(subject: Subject, folder: Path) -> tuple[str, ...]:
    """Write the chat template and `generation_config.json` to `folder`; returns their names."""
    generation = subject.generation
    settings = {"eos_token_id": subject.end_token_ids, "max_new_tokens": generation.cap, "temperature": 0.0}
    texts = {TEMPLATE_NAME: subject.template, GENERATION_NAME: json.dumps(settings, indent=2) + "\n"}
    for name, text in texts.items():
        with replacing_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return tuple(texts)


def launch_line(subject: Subject, model: str, *, adapter: Path | None = None, name: str = "adapter") -> str:
    """The command that serves the folder `model`, or the base of that name and the adapter in `adapter` beside it.

    `name` is what the adapter's folder is called where the command runs. Raises ModelError for an adapter that vLLM
    does not serve.
    """
    words = ["vllm", "serve", model]
    if adapter is None:
        words += ["--served-model-name", subject.name]
    else:
        settings = read_mapping(adapter / CONFIG_NAME)
        rank = served_rank(settings, adapter, (Command("merge"), " it, and export that"))
        words += lora_arguments(name, rank, name=subject.name)
        if subject.names.base_revision:
            words += ["--revision", subject.names.base_revision]
    words += ["--chat-template", TEMPLATE_NAME, "--generation-config", "."]
    return shlex.join([*words, "--max-model-len", str(subject.generation.context)])
