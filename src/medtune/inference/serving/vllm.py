"""vLLM's own server as a child of `medtune serve`, told what the run knows."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from medtune.errors import ConfigError, Option
from medtune.inference.chat import NO_ADVICE, Target
from medtune.inference.serving.address import Address, require_key
from medtune.inference.serving.limits import Limits
from medtune.inference.vllm.adapters import LORA_RANKS, largest_rank, lora_arguments, require_served, told_rank
from medtune.inference.vllm.model_files import write_settings
from medtune.inference.vllm.program import (
    PROGRAM_VARIABLE,
    environment,
    find_program,
    more_arguments,
    running,
    wait_until_healthy,
)
from medtune.model.adapter_files import CONFIG_NAME
from medtune.runtime.progress import say
from medtune.storage.reading import read_mapping

_WITH_SYSTEM_PROMPT = (
    "{%- if messages and messages[0]['role'] != 'system' -%}"
    "{%- set messages = [{'role': 'system', 'content': SYSTEM}] + messages -%}"
    "{%- endif -%}"
)


@dataclass(frozen=True, slots=True)
class ServedFiles:
    """What vLLM is given: the base's folder, that of the adapter if there is one, its rank, and what we write for it.

    `folder` holds tokenizer, chat template and generation settings; `template_settings` is what the template reads
    besides the messages, `positions` how many tokens the model can read, where it says.
    """

    base: Path
    adapter: Path | None
    rank: int
    folder: Path
    template_settings: dict[str, Any]
    positions: int | None


def serve_with_vllm(target: str, address: Address, limits: Limits, program: str | None) -> int:
    """Run `vllm serve` until it ends, handing signals on; its exit status. Raises MedtuneError.

    `program` is vLLM's command where it is not on the PATH.
    """
    with _started(target, address, limits, program) as child:
        status = child.wait()
    return status if status >= 0 else 128 - status


@contextmanager
def serving_with_vllm(target: str, address: Address, limits: Limits, program: str | None) -> Iterator[str]:
    """As `serve_with_vllm`, until this block ends; gives the API's URL once vLLM answers there. Raises MedtuneError."""
    with tempfile.TemporaryFile() as output, _started(target, address, limits, program, output) as child:
        url = f"http://{f'[{address.host}]' if ':' in address.host else address.host}:{address.port}"
        wait_until_healthy(child, url, output)
        yield f"{url}/v1"


@contextmanager
def _started(
    target: str, address: Address, limits: Limits, program: str | None, output: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    require_key(address)
    own = "install it in an environment of its own, and name its command with "
    fix = (own, Option("vllm", "PATH"), f" or in {PROGRAM_VARIABLE}")
    found = find_program(program, Option("engine", "vllm"), fix)
    with tempfile.TemporaryDirectory(prefix="medtune-vllm-") as folder:
        files = write_files(Target.find(target), limits, Path(folder))
        command = [found, *arguments(files, address, limits), *more_arguments()]
        say(f"vLLM answers; {NO_ADVICE}")
        with running(command, environment(address.key), address.grace, output=output) as child:
            yield child


def write_files(target: Target, limits: Limits, folder: Path) -> ServedFiles:
    """Tokenizer, chat template and generation settings of `target`, written to `folder`. Raises MedtuneError."""
    from transformers import AutoConfig, GenerationConfig

    from medtune.model.loaded import end_token_ids, renderer_of
    from medtune.model.loading import resolve_base

    config = target.config
    base = resolve_base(config.model.base, config.model.revision).path
    renderer = renderer_of(config)
    template = with_system_prompt(renderer.tokenizer.chat_template, renderer.system_prompt)
    (folder / "served.jinja").write_text(template, encoding="utf-8")
    own = GenerationConfig()
    if (base / "generation_config.json").is_file():
        own = GenerationConfig.from_pretrained(base)
    ends = end_token_ids(renderer, SimpleNamespace(generation_config=own))
    cap = limits.new_tokens or config.generation.max_new_tokens
    write_settings(folder, renderer.tokenizer, ends, cap)
    rank = 0
    if target.adapter is not None:
        adapter = read_mapping(target.adapter / CONFIG_NAME)
        require_served(adapter, target.adapter, "merge it, and serve the merged folder")
        rank = largest_rank(adapter)
    text = AutoConfig.from_pretrained(base).get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    return ServedFiles(base, target.adapter, rank, folder, config.model.template_settings, positions)


def with_system_prompt(template: str, system_prompt: str) -> str:
    """`template`, which begins a conversation without a system turn with `system_prompt`."""
    if not system_prompt.strip():
        return template
    # As a JSON text, which Jinja reads too; a brace in it could end Jinja's own.
    text = json.dumps(system_prompt.strip(), ensure_ascii=False).replace("{", "\\u007b").replace("}", "\\u007d")
    return _WITH_SYSTEM_PROMPT.replace("SYSTEM", text) + template


def arguments(files: ServedFiles, address: Address, limits: Limits) -> list[str]:
    """What `vllm serve` is called with; raises ConfigError for an adapter of a larger rank than it takes."""
    cap = json.loads((files.folder / "generation_config.json").read_text(encoding="utf-8"))["max_new_tokens"]
    length = min(limits.prompt_tokens + cap, files.positions or sys.maxsize)
    options: dict[str, object] = {
        "served-model-name": "tuned" if files.adapter is None else "base",
        "host": address.host,
        "port": address.port,
        "tokenizer": files.folder,
        "chat-template": files.folder / "served.jinja",
        "generation-config": files.folder,
        "max-model-len": length,
        "max-num-seqs": limits.rows,
        "max-num-queued-reqs": limits.rows + limits.waiting,  # those that are answered count
    }
    if files.template_settings:
        options["default-chat-template-kwargs"] = json.dumps(files.template_settings)
    lora = []
    if files.adapter is not None:
        if (rank := told_rank(files.rank)) is None:
            problem = f"the adapter has rank {files.rank}, and vLLM takes {LORA_RANKS[-1]} at most"
            raise ConfigError(Option("engine", "vllm"), problem, "merge it, and serve the merged folder")
        lora = lora_arguments(files.adapter, rank)
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ["serve", str(files.base), *words, *lora]
