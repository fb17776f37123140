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
}


def known_model(section: ModelSection) -> KnownModel | None:
    """The sizes of `section.base`; None if they are not known here, or may differ at the revision that it names."""
    if section.base not in _FOLDERS or section.revision is not None:
        return None
    name, parameters = _FOLDERS[section.base]
    return KnownModel(Path(str(files(__name__))) / name, parameters)
