"""The licences of a published model: its base's, and its data's. What they ask for is their own words."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.data.sources import DEMO_SOURCE
from medtune.data.table_files import TABLE_SUFFIXES
from medtune.model.loading import DEMO_MODEL
from medtune.publishing.public_names import PublicNames
from medtune.run_dir.directory import RunDir
from medtune.storage.hub import LICENCE_FILES
from medtune.storage.reading import DamagedError, read_mapping, read_text

_VOCABULARY_OF_LLAMA_3 = 128_256
_LLAMA_3 = re.compile(r"(?i)(?<![a-z])llama[-_ ]?3(?:[._]([123])|-([123])(?=-[0-9]+b(?![a-z])))?(?![0-9]|b(?![a-z]))")
_STATED = re.compile(r"\A---\n(?:(?!---\n).*\n)*?license: *([\"']?)([\w.-]{1,40})\1 *\n(?:.*\n)*?---\n")
# How the first version and its successors scale positions, which tells them apart where a name does not.
_ROPE_FACTORS = {8.0: "3.1", 32.0: "3.2"}
_KNOWN = {"HuggingFaceTB/SmolLM2": "apache-2.0", DEMO_MODEL: "apache-2.0"}


@dataclass(frozen=True, slots=True)
class BaseLicence:
    """A base model's licence by the Hub's name for it, `other` where it is not known.

    What Meta's licences ask for is None elsewhere: words to show, a notice to pass on, how a model's name begins.
    """

    identifier: str
    title: str
    built_with: str | None = None
    notice: str | None = None
    name_prefix: str | None = None


@dataclass(frozen=True, slots=True)
class DataLicence:
    """What is said of the data's licence, in one sentence, and its name on the Hub where it is known."""

    identifier: str | None
    sentence: str


def base_licence(run: RunDir, names: PublicNames) -> BaseLicence:
    """The licence of the run's base model, by its configuration and both its own name and the one it has in public."""
    base = run.config.model.base
    by_config = _version_by_config(_base_config(run))
    versions = [version for version in (_version_by_name(base), _version_by_name(names.base), by_config) if version]
    if versions:
        # A name that says 3 alone may mean any of them.
        return _llama_licence(next((version for version in versions if version != "3"), "3"))
    for start, licence in _KNOWN.items():
        if names.base.startswith(start):
            return BaseLicence(licence, licence)
    stated = _stated_licence(Path(base))
    return BaseLicence(stated, stated) if stated else BaseLicence("other", "that of the base model")


def agreement_files(run: RunDir) -> dict[str, Path]:
    """The base model's licence files that are on this machine, in its folder or in the Hub's cache."""
    folder = _base_folder(run)
    if folder is None:
        return {}
    found = sorted(file for pattern in LICENCE_FILES for file in folder.glob(pattern) if file.is_file())
    return {file.name: file for file in found}


def data_licence(names: PublicNames) -> DataLicence:
    """What may be said of the rows' licence."""
    if names.source == DEMO_SOURCE:
        return DataLicence("apache-2.0", "The rows were written for medtune's demo and are under Apache-2.0.")
    source = names.source.lower()
    # Rows that are not from the Hub come from a folder of MedQuAD's XML, or from tables.
    is_xml = names.may_be_medquad_xml and not source.endswith(TABLE_SUFFIXES)
    if "medquad" in source if names.source_on_hub else is_xml:
        return DataLicence(
            "cc-by-4.0",
            "MedQuAD, by Asma Ben Abacha and Dina Demner-Fushman, under CC BY 4.0 "
            "(https://creativecommons.org/licenses/by/4.0/): A question-entailment approach to question answering. "
            "BMC Bioinformatics 20, 511 (2019). Its rows were cleaned, split and used for training.",
        )
    return DataLicence(None, "The licence of these rows is for whoever publishes this model to state.")


def _llama_licence(version: str) -> BaseLicence:
    title = "Meta Llama 3" if version == "3" else f"Llama {version}"
    return BaseLicence(
        identifier=f"llama{version}",
        title=f"{title} Community License",
        built_with="Built with Meta Llama 3" if version == "3" else "Built with Llama",
        notice=f"{title} is licensed under the {title} Community License, "
        "Copyright © Meta Platforms, Inc. All Rights Reserved.",
        name_prefix="Llama-3" if version == "3" else "Llama",
    )


def _version_by_name(base: str) -> str | None:
    match = _LLAMA_3.search(base.rpartition("/")[2])
    if match is None:
        return None
    return f"3.{minor}" if (minor := match[1] or match[2]) else "3"


def _version_by_config(config: Mapping[str, Any]) -> str | None:
    """Models that are derived from LLaMA-3 under another name have its structure and vocabulary."""
    if config.get("model_type") != "llama" or config.get("vocab_size") != _VOCABULARY_OF_LLAMA_3:
        return None
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    # Other ways to scale are those of whoever lengthened the context of the first version.
    if not isinstance(scaling, dict) or "llama3" not in (scaling.get("rope_type"), scaling.get("type")):
        return "3"
    factor = scaling.get("factor")
    return _ROPE_FACTORS.get(factor, "3") if isinstance(factor, (int, float)) else "3"


def _base_config(run: RunDir) -> dict[str, Any]:
    folder = _base_folder(run)
    try:
        return read_mapping(folder / "config.json") if folder is not None else {}
    except (DamagedError, FileNotFoundError):
        return {}


def _base_folder(run: RunDir) -> Path | None:
    """Where the base model's files are on this machine; nothing is fetched."""
    base = run.config.model.base
    if os.path.isdir(base):
        return Path(base)
    # The commit of the base that the run read from the Hub, whatever name it is given in public.
    if (revision := run.provenance.get("model", {}).get("revision")) is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(base, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def _stated_licence(folder: Path) -> str | None:
    """What the metadata of the model card in a base model's folder says."""
    try:
        stated = _STATED.search(read_text(folder / "README.md"))
    except (FileNotFoundError, DamagedError):
        return None
    return stated[2] if stated else None
