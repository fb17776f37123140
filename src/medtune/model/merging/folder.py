"""The folder of a merged model: its files beside the weights, and whether a folder already holds one."""

import json
import os
import shutil
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any

from medtune.errors import ModelError, Option
from medtune.model.chat_templates import TEMPLATE_NAME
from medtune.model.merging.record import MergeRecord
from medtune.runtime.progress import progress_bar
from medtune.runtime.terminal import one_line
from medtune.storage.hub import ADAPTER_SETTINGS, LICENCE_FILES, TOKENIZER_FILES
from medtune.storage.reading import DamagedError, check_type, difference, read_mapping
from medtune.storage.writing import replacing_file

RECORD_NAME = "merge.json"
CONFIG_NAME, GENERATION_NAME = "config.json", "generation_config.json"


def write_companions(
    base: Path, adapter: Path, folder: Path, *, dtype: str, untied: bool, vocabulary: int | None = None
) -> None:
    """Write to `folder` all that transformers reads beside the weights, and the base's licence.

    The tokenizer is the one that the adapter was trained with, or the base's where the adapter brings none. Raises
    ModelError if the base's configuration cannot be read.
    """
    _copy(base, folder, (GENERATION_NAME, *LICENCE_FILES))
    _copy(adapter, folder, (ADAPTER_SETTINGS,))
    # Other programs read the vocabulary there, and transformers only where there is no tokenizer.json.
    _copy(base, folder, ("*.model",))
    # One of both would be neither: a file that the adapter does not need, such as special_tokens_map.json, overrules.
    _copy(adapter if (adapter / "tokenizer.json").is_file() else base, folder, TOKENIZER_FILES)
    _copy(adapter, folder, (TEMPLATE_NAME,))  # which an adapter may bring by itself
    try:
        config = read_mapping(base / CONFIG_NAME)
    except (DamagedError, FileNotFoundError) as error:
        raise ModelError(base / CONFIG_NAME, f"cannot be used ({error})", "fetch the model again") from None
    config.pop("auto_map", None)  # of code that is neither run nor copied
    config.pop("_name_or_path", None)  # a folder on the machine of whoever saved the base
    changes: dict[str, Any] = {"dtype": dtype, **({"tie_word_embeddings": False} if untied else {})}
    sizes = {} if vocabulary is None else {"vocab_size": vocabulary}
    # Older versions of transformers look for `torch_dtype`.
    config = _changed(config | changes, {**changes, **sizes, "torch_dtype": dtype})
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG_NAME).write_text(text, encoding="utf-8")


def write_record(folder: Path, record: MergeRecord) -> None:
    """Write `merge.json`."""
    with replacing_file(folder / RECORD_NAME) as temporary:
        temporary.write_text(json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_record(file: Path) -> MergeRecord | None:
    """A `merge.json`; None if there is none. Raises ModelError if it is damaged."""
    try:
        return check_type(MergeRecord, read_mapping(file))
    except FileNotFoundError:
        return None
    except DamagedError as error:
        raise ModelError(file, f"damaged, {error}", "delete it, and merge again") from None


def record_of(folder: Path) -> MergeRecord | None:
    """The record of the merged model in `folder`; None if it holds none. Raises ModelError if it is damaged."""
    # A run's directory and a published adapter have a record too, of a merge elsewhere.
    others = ("config.yaml", "adapter_config.json")
    return None if any((folder / name).is_file() for name in others) else read_record(folder / RECORD_NAME)


def existing_merge(folder: Path, wanted: MergeRecord) -> MergeRecord | None:
    """The record of a whole merge of the same adapter, base and dtype in `folder`; None if nothing is there.

    Raises ModelError for anything else: a folder of a user's own is never written to.
    """
    if not os.path.lexists(folder):
        above = next(parent for parent in folder.absolute().parents if os.path.lexists(parent))
        if not above.is_dir():
            raise ModelError(folder, f"{above} is no directory", ("give another ", Option("to")))
        return None
    if not folder.is_dir():
        raise ModelError(folder, "is a file, not a directory", ("give another ", Option("to")))
    if not any(folder.iterdir()):
        return None
    record = record_of(folder)
    if record is None:
        raise ModelError(folder, "not empty, and no merged model", ("give another ", Option("to")))
    for name in ("adapter", "base", "revision", "dtype"):
        if getattr(record, name) != getattr(wanted, name):
            raise ModelError(folder, f"holds a merge of another {name}", ("delete it, or give another ", Option("to")))
    if record.files and record.identity != wanted.identity:
        raise ModelError(folder, f"merged into {record.base} before its files changed", "delete it, and merge again")
    require_whole(folder, record)
    return record


def require_whole(folder: Path, record: MergeRecord) -> None:
    """Raises ModelError, naming it, if a file of the merge in `folder` is not as `record` says it was written.

    All of them are read: a few bytes of 16 GB that differ are another model.
    """
    if not record.files:
        raise ModelError(one_line(str(folder)), "merged before checksums were kept", "delete it, and merge again")
    with progress_bar("Checking files", len(record.files), unit="files") as advance:
        for name, described in record.files.items():
            # A record that names a file elsewhere was not written here.
            how = difference(folder / name, asdict(described)) if PurePath(name).name == name else "is not in it"
            if how is not None:
                raise ModelError(one_line(str(folder)), f"its {one_line(name)} {how}", "delete it, and merge again")
            advance(1)


def _changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`config` with those values wherever it has these keys, in its parts too."""
    return {
        key: _changed(value, changes) if isinstance(value, dict) else changes.get(key, value)
        for key, value in config.items()
    }


def _copy(source: Path, target: Path, patterns: tuple[str, ...]) -> None:
    # Not copy2: permissions and times of a cache are not a new model's.
    for file in sorted(source.iterdir()):
        if file.is_file() and any(fnmatchcase(file.name, pattern) for pattern in patterns):
            shutil.copyfile(file, target / file.name)
