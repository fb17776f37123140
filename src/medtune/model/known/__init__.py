"""Sizes of the shipped recipes' models, so that they can be planned for without the Hub.

Each folder holds a config.json of ours with the architecture's public figures: no tokenizer and no weights.
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from medtune.config.schema import ModelSection


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A folder with config.json, and how many parameters that describes."""

    folder: Path
    parameters: int


_FOLDERS = {
    "meta-llama/Meta-Llama-3-8B-Instruct": ("llama-3-8b-instruct", 8_030_261_248),
    "meta-llama/Meta-Llama-3-70B-Instruct": ("llama-3-70b-instruct", 70_553_706_496),
    "HuggingFaceTB/SmolLM2-135M-Instruct": ("smollm2-135m-instruct", 134_515_008),
    "HuggingFaceTB/SmolLM3-3B": ("smollm3-3b", 3_075_098_624),
    "Qwen/Qwen3-0.6B": ("qwen3-0.6b", 596_049_920),
    "Qwen/Qwen3-4B": ("qwen3-4b", 4_022_468_096),
    "Qwen/Qwen3-8B": ("qwen3-8b", 8_190_735_360),
    "google/gemma-3-1b-it": ("gemma-3-1b-it", 999_885_952),
    "meta-llama/Llama-3.2-1B-Instruct": ("llama-3.2-1b-instruct", 1_235_814_400),
    "meta-llama/Llama-3.2-3B-Instruct": ("llama-3.2-3b-instruct", 3_212_749_824),
    "microsoft/Phi-4-mini-instruct": ("phi-4-mini-instruct", 3_836_021_760),
    "mistralai/Mistral-7B-Instruct-v0.3": ("mistral-7b-instruct-v0.3", 7_248_023_552),
}


def known_model(section: ModelSection) -> KnownModel | None:
    """The sizes of `section.base`; None if they are not known here, or may differ at the revision that it names."""
    if section.base not in _FOLDERS or section.revision is not None:
        return None
    name, parameters = _FOLDERS[section.base]
    return KnownModel(Path(str(files(__name__))) / name, parameters)
