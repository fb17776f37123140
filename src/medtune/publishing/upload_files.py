"""What goes up: the model's own files, and beside them everything that says what it is and what it was measured to do.

Copies of texts are made for the public: of paths on this machine they keep the last component.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from medtune.config.recipes.yaml_text import dump_config
from medtune.errors import Command, Option, PublishError
from medtune.model.adapters import adapter_fingerprint
from medtune.model.merging.folder import RECORD_NAME, record_of, require_whole
from medtune.publishing.licences import BaseLicence, agreement_files
from medtune.publishing.merge_record import read_merge
from medtune.publishing.model_card import CardRequest, build_card
from medtune.publishing.public_names import PublicNames, public_config
from medtune.publishing.upload_checks import require_plain_files
from medtune.records import ModelName
from medtune.run_dir.directory import RunDir
from medtune.runtime.terminal import one_line
from medtune.storage.hub import ADAPTER_FILES, CONFIG_FILES, WEIGHT_FILES
from medtune.storage.reading import DamagedError, describe_file, read_mapping, read_text

CARD, RECIPE, NOTICE = "README.md", "recipe.yaml", "NOTICE"
_ADAPTER_CONFIG = "adapter_config.json"
# Texts that hold no path and are too long to look through, or that are the model's own words.
_AS_THEY_ARE = ("tokenizer.json", "vocab.json", "merges.txt", "*.jinja", "*.model")
_MODELS: tuple[ModelName, ...] = ("baseline", "tuned")


@dataclass(frozen=True)
class Uploads:
    """Collects what goes up to `repo`: `files` by their names there. Copies are made in `folder`."""

    run: RunDir
    names: PublicNames
    folder: Path
    files: dict[str, Path] = field(default_factory=dict)

    def add(self, name: str, file: Path) -> None:
        """A file as it is or, if it is a text, a copy without the paths of this machine.

        Small files go up as copies, so that what was checked is what goes up.
        """
        if file.suffix == ".safetensors":
            self.files[name] = file
        elif any(fnmatchcase(file.name, pattern) for pattern in _AS_THEY_ARE):
            self.files[name] = self._copy(name)
            shutil.copyfile(file, self.files[name])
        else:
            try:
                self.add_text(name, self.names.scrub(read_text(file)))
            except DamagedError as error:
                raise PublishError(one_line(str(file)), str(error), "make it again") from None

    def add_text(self, name: str, text: str) -> None:
        """A text that is written for the repository."""
        self.files[name] = self._copy(name)
        self.files[name].write_text(text, encoding="utf-8", newline="\n")

    def _copy(self, name: str) -> Path:
        copy = self.folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        return copy

    def add_adapter(self) -> None:
        """The adapter with its tokenizer, and the base model's public name in its configuration."""
        folder = self.run.adapter_dir
        require_plain_files(folder)
        for file in _plain_files(folder, (*ADAPTER_FILES, *CONFIG_FILES)):
            self.add(file.name, file)
        settings = json.loads(self.names.scrub(json.dumps(read_mapping(folder / _ADAPTER_CONFIG))))
        public = {"base_model_name_or_path": self.names.base, "revision": self.names.base_revision}
        self.add_text(_ADAPTER_CONFIG, json.dumps({**settings, **public}, indent=2, sort_keys=True) + "\n")

    def add_merged(self, folder: Path) -> None:
        """A merged model. Raises MedtuneError unless `folder` holds a whole one of this run's adapter."""
        if not folder.is_dir():
            fix = ("make it with ", Command("merge", self.run.path, (Option("to", "DIR"),)))
            raise PublishError(Option("merged", folder), "no such folder", fix)
        _require_merge_of(self.run, folder)
        require_plain_files(folder)
        for file in _plain_files(folder, (*CONFIG_FILES, *WEIGHT_FILES)):
            self.add(file.name, file)
        # The record of the merge, with the checksums of texts as they go up.
        record = read_mapping(folder / RECORD_NAME)
        for name in record["files"]:
            if name in self.files and self.files[name].parent == self.folder:
                record["files"][name] = describe_file(self.files[name])
        self.add_text(RECORD_NAME, self.names.scrub(json.dumps(record, indent=2, ensure_ascii=False)) + "\n")

    def add_evidence(self, request: CardRequest, licence: BaseLicence) -> None:
        """Card, recipe, scores and report of the run, and what the base's licence wants to go with it."""
        run = self.run
        self.add_text(CARD, build_card(run, request))
        self.add_text(RECIPE, dump_config(public_config(run.config, self.names)))
        if run.is_complete("compare"):
            compared = (run.comparison_file, run.comparison_text_file, run.controls_file, run.strata_file)
            for file in (*compared, run.lengths_file):
                self.add(file.name, file)
            for model in _MODELS:
                self.add(f"scores/{model}.json", run.scores_file(model))
        if RECORD_NAME not in self.files and read_merge(run) is not None:
            self.add(RECORD_NAME, run.merge_file)
        if request.has_report:
            self.add(run.report_file.name, run.report_file)
        if licence.notice is not None:
            for name, file in agreement_files(run).items():
                self.add(name, file)
            self.add_text(NOTICE, f"{licence.notice}\n")


def _plain_files(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    """The files that match, save the card that PEFT or transformers wrote: there is a better one."""
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name != CARD and any(fnmatchcase(file.name, pattern) for pattern in patterns):
            yield file


def _require_merge_of(run: RunDir, folder: Path) -> None:
    where = one_line(str(folder))
    record = record_of(folder)
    if record is None:
        fix = ("make one with ", Command("merge", run.path, (Option("to", "DIR"),)))
        raise PublishError(where, "no merged model", fix)
    if record.adapter != adapter_fingerprint(run.adapter_dir):
        raise PublishError(where, "merged from another adapter than this run's", "merge again")
    require_whole(folder, record)
