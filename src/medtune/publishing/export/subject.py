"""What is exported: a run's model with its prompts, how it answers, and what it is called in public."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.data.prompts import PromptRenderer
from medtune.errors import ModelError
from medtune.publishing.export.gguf_files import Label
from medtune.publishing.export.gguf_vocabulary import splitting_rule
from medtune.publishing.export.modelfile import Generation
from medtune.publishing.licences import BaseLicence, base_licence
from medtune.publishing.public_names import PublicNames, public_names
from medtune.run_dir.directory import RunDir
from medtune.storage.reading import DamagedError, read_mapping

NOT_ADVICE = "Not medical advice: its answers can be wrong and still sound right."
# Ollama's own converter (convert/convert.go and convert/tokenizer.go of https://github.com/ollama/ollama).
_OLLAMA_KNOWS = ("llama", "gemma", "gemma2", "gemma3_text", "phi3", "qwen2")
_OLLAMA_SPLITS = ("llama-bpe", "qwen2")


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to be exported. `folder` holds it, or the base that its adapter is for; `positions` is its context."""

    run: RunDir
    folder: Path
    renderer: PromptRenderer
    names: PublicNames
    licence: BaseLicence
    positions: int

    @classmethod
    def of(cls, run: RunDir, folder: Path, renderer: PromptRenderer) -> "Subject":
        """The model of `run` in `folder`. Raises MedtuneError if its files cannot be read."""
        names = public_names(run)
        config = _settings(folder / "config.json")
        positions = int(config.get("max_position_embeddings") or run.config.training.max_length)
        return cls(run, folder, renderer, names, base_licence(run, names), positions)

    @property
    def name(self) -> str:
        """What it is called where it runs: the run's directory, in letters that every program takes."""
        return re.sub(r"[^a-z0-9._-]+", "-", self.run.path.resolve().name.lower()).strip("-._") or "medtune"

    @property
    def adds_bos(self) -> bool:
        """Whether a prompt begins with BOS."""
        bos = self.renderer.tokenizer.bos_token_id
        return bos is not None and self.renderer.prompt_ids("?")[:1] == [bos]

    @property
    def end_token_ids(self) -> list[int]:
        """Every token that ends an answer: the chat template's, the tokenizer's and the generation config's."""
        listed = _settings(self.folder / "generation_config.json").get("eos_token_id")
        ids = {self.renderer.end_token_id, self.renderer.tokenizer.eos_token_id}
        return sorted((ids | set(listed if isinstance(listed, list) else [listed])) - {None})

    @property
    def generation(self) -> Generation:
        """How the run answers."""
        config, tokenizer = self.run.config, self.renderer.tokenizer
        cap, needed, context = config.generation.max_new_tokens, config.training.max_length, 512
        while context < needed + cap:
            context *= 2
        return Generation(
            end_tokens=tuple(tokenizer.convert_ids_to_tokens(self.end_token_ids)),
            cap=cap,
            context=min(context, self.positions),
            system_prompt=config.data.system_prompt.strip(),
        )

    @property
    def template(self) -> str:
        """The chat template, with the run's settings for it set."""
        settings = "".join(
            f"{{%- set {name} = {_in_jinja(value)} %}}" for name, value in self.renderer.settings.items()
        )
        return settings + str(self.renderer.tokenizer.get_chat_template())

    @property
    def label(self) -> Label:
        """What a GGUF file says of it."""
        return Label(self.name, self.names.base, self.licence.identifier, f"Fine-tuned with medtune. {NOT_ADVICE}")

    @property
    def date_note(self) -> str | None:
        """What to know of a chat template that prints a date; None if it prints none."""
        text = str(self.renderer.tokenizer.get_chat_template())
        if "strftime_now" not in text and "date_string" not in text:
            return None
        return f"The chat template prints a date; the run's prompts had {self.renderer.today or 'that of each day'}."


def ollama_obstacle(subject: Subject) -> str | None:
    """Why Ollama would not read the folder as medtune does; None if it would."""
    config = _settings(subject.folder / "config.json")
    if (kind := config.get("model_type")) not in _OLLAMA_KNOWS:
        return f"Ollama does not import folders of {kind}"
    if (subject.folder / "tokenizer.model").is_file():
        return None
    try:
        rule = splitting_rule(subject.renderer.tokenizer)
    except ModelError:
        rule = None
    if rule not in _OLLAMA_SPLITS:
        return "Ollama would split texts into other tokens, since it does not know this tokenizer's rule"
    return None


def ollama_adds_bos(subject: Subject) -> bool:
    """Whether Ollama puts BOS before a prompt for a folder that it imports."""
    stated = _settings(subject.folder / "tokenizer_config.json").get("add_bos_token")
    if isinstance(stated, bool):
        return stated
    if (subject.folder / "tokenizer.model").is_file():
        return True
    return splitting_rule(subject.renderer.tokenizer) == "llama-bpe"


def _settings(file: Path) -> dict[str, Any]:
    try:
        return dict(read_mapping(file))
    except FileNotFoundError:
        return {}
    except DamagedError as error:
        raise ModelError(file, f"cannot be used ({error})", "merge again") from None


def _in_jinja(value: Any) -> str:
    return "none" if value is None else json.dumps(value)
