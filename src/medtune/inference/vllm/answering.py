"""Answers of an evaluation by vLLM, which starts when our own model has gone, and ends before others want memory."""

from __future__ import annotations

import secrets
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medtune.config.schema import Config
from medtune.errors import ConfigError, ModelError
from medtune.inference.predictions import Asked
from medtune.inference.vllm.adapters import lora_arguments, served_rank
from medtune.inference.vllm.completions import Endpoint, answer_rows
from medtune.inference.vllm.model_files import write_settings
from medtune.inference.vllm.program import (
    PROGRAM_VARIABLE,
    environment,
    failure,
    find_program,
    more_arguments,
    running,
    version_of,
    wait_until_healthy,
)
from medtune.model.adapter_files import CONFIG_NAME
from medtune.model.loading import resolve_base
from medtune.runtime.launch import world_size
from medtune.runtime.progress import progress_bar, say
from medtune.storage.reading import read_mapping

# What to do about what vLLM cannot do.
OTHER_ENGINE = "leave out generation.engine"
_GRACE_SECONDS = 30.0
# vLLM's default is 0.92 of the card, of which this process's own CUDA context keeps a part.
_GPU_SHARE = "0.85"


@dataclass(frozen=True, slots=True)
class VllmEngine:
    """vLLM as it is installed here: its command, its version, and what the user has it called with besides."""

    program: str
    version: str
    arguments: tuple[str, ...]

    @classmethod
    def find(cls) -> VllmEngine:
        """Raises ConfigError if there is none, or several processes would each start one, and ModelError."""
        if world_size() > 1:
            fix = "evaluate in one process; MEDTUNE_VLLM_ARGUMENTS='--tensor-parallel-size 2' gives vLLM two GPUs"
            raise ConfigError("generation.engine", "vllm answers one process, and several were launched", fix)
        install = "`python -m venv ~/vllm && ~/vllm/bin/pip install vllm`"
        fix = f"install it in an environment of its own, {install}, and name ~/vllm/bin/vllm in {PROGRAM_VARIABLE}"
        program = find_program(None, "generation.engine", fix)
        return cls(program, version_of(program), tuple(more_arguments()))

    @property
    def origin(self) -> dict[str, str]:
        """What answers depend on, as it is recorded and compared."""
        return {"vllm": " ".join([self.version, *self.arguments])}


@dataclass(frozen=True, slots=True)
class VllmModel:
    """The model that answers: its base, the folder of the adapter if it has one, and the dtype it is computed in."""

    base: Path
    adapter: Path | None
    dtype: str

    @classmethod
    def of(cls, config: Config, adapter: Path | None, dtype: str) -> VllmModel:
        """The base of a pinned configuration."""
        return cls(resolve_base(config.model.base, config.model.revision).path, adapter, dtype)


def answer_with_vllm(engine: VllmEngine, model: VllmModel, asked: Sequence[Asked]) -> None:
    """Have vLLM answer what is not answered of all of `asked`. Raises MedtuneError.

    No other model may be in this process's GPU memory: vLLM takes most of what the card has, and gives it back at the
    end.
    """
    to_do = [one for one in asked if one.answering.to_do]
    if not to_do:
        return
    with tempfile.TemporaryDirectory(prefix="medtune-vllm-") as name:
        folder, key = Path(name), secrets.token_hex(16)
        first = asked[0]
        write_settings(folder, first.tokenizer, first.greedy.end_token_ids, first.greedy.max_new_tokens)
        port = _free_port()
        url = f"http://127.0.0.1:{port}"
        command = [engine.program, *arguments(model, asked, folder, port), *engine.arguments]
        say(f"vLLM {engine.version} starts, which may take minutes")
        with (
            (folder / "log").open("w+b") as log,
            running(command, environment(key), _GRACE_SECONDS, output=log) as child,
        ):
            wait_until_healthy(child, url, log)
            endpoint = Endpoint(url, key, "base" if model.adapter is None else "tuned")
            try:
                for one in to_do:
                    work = one.answering
                    bars = progress_bar("Answering questions with vLLM", work.rows, len(work.done), unit="questions")
                    with bars as bar:
                        answer_rows(endpoint, one, bar)
            except ModelError:
                if child.poll() is not None:
                    raise failure(child, log) from None
                raise


def arguments(model: VllmModel, asked: Sequence[Asked], folder: Path, port: int) -> list[str]:
    """What `vllm serve` is called with. Raises ModelError for an adapter that it does not serve."""
    longest = max(len(prompt) for one in asked for prompt in one.prompts)
    options: Mapping[str, object] = {
        "served-model-name": "base",
        "host": "127.0.0.1",
        "port": port,
        "tokenizer": folder,
        "generation-config": folder,
        "dtype": model.dtype,
        "max-model-len": longest + asked[0].greedy.max_new_tokens,
        "max-num-seqs": max(one.plan.batch_size for one in asked),
        "gpu-memory-utilization": _GPU_SHARE,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    lora = []
    if model.adapter is not None:
        settings = read_mapping(model.adapter / CONFIG_NAME)
        lora = lora_arguments(model.adapter, served_rank(settings, model.adapter, OTHER_ENGINE))
    return ["serve", str(model.base), *words, *lora]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
