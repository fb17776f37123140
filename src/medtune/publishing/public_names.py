"""What of a run's names and paths may be published: Hub ids as they are, of local paths the last component alone."""

import html
import json
import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath, PureWindowsPath

from medtune.config.schema import Config
from medtune.data.sources import DEMO_SOURCE
from medtune.data.table_files import TABLE_SUFFIXES
from medtune.model.loading import DEMO_MODEL
from medtune.run_dir.directory import RunDir
from medtune.runtime.terminal import harmless, one_line

_LOCAL_START = (".", "/", "~", "\\")
# A path from a root, a home or a drive. What comes before it must not make it part of a word, an address or a ratio.
_PATH = re.compile(
    r"(?<![\w/.~-])(?:~|[A-Za-z]:|\\)?[/\\](?:[^\s/\\:;,|'\"<>()\[\]{}]+[/\\])+([^\s/\\:;,|'\"<>()\[\]{}]*)"
)
_SEPARATORS = ("/", "\\")
# Not inside of a longer path or an address, whose end only looks like a private one; a file's address is one, and the
# letter of a line break, or the number of a character, that JSON spells out is no part of a word.
_BEFORE = r"(?:(?<![\w./~-])|(?<=file://)|(?<=file:///)|(?<=\\[nrt])|(?<=\\u[0-9a-f]{4}))"
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")


@dataclass(frozen=True, slots=True)
class PublicNames:
    """How a run's base model and source are called in public, and whether the Hub knows them by that name.

    `base_revision` and `source_revision` are commits. `private_paths` are texts that must not go up, each with what
    replaces it, longest first. `may_be_medquad_xml` is false where a folder holds other rows, and for several sources.
    """

    base: str
    base_on_hub: bool
    base_revision: str | None
    source: str
    source_on_hub: bool
    source_revision: str | None
    private_paths: tuple[tuple[str, str], ...]
    may_be_medquad_xml: bool = True

    def scrub(self, text: str) -> str:
        """`text` without the paths of this machine."""
        for path, name in self.private_paths:
            if path not in text:
                continue
            end = "" if path.endswith(_SEPARATORS) else r"(?![\w-])"
            text = re.sub(rf"{_BEFORE}{re.escape(path)}{end}", lambda _, name=name: name, text)  # type: ignore[misc]
        return text


def public_names(run: RunDir, base_model: str | None = None) -> PublicNames:
    """The names of `run`; `base_model` is the Hub id of a base model that the run read from a folder.

    Raises RunDirError if its provenance is damaged.
    """
    config, provenance = run.config, run.provenance
    base_revision = provenance.get("model", {}).get("revision")
    source_revision = provenance.get("data", {}).get("revision")
    return PublicNames(
        base=base_model or public_name(config.model.base),
        base_on_hub=base_model is not None or base_revision is not None,
        base_revision=None if base_model is not None else base_revision,
        source=public_source(config),
        source_on_hub=source_revision is not None,
        source_revision=source_revision,
        may_be_medquad_xml=not config.data.sources and "folder_of" not in provenance.get("data", {}),
        # A folder may be called as the model is on the Hub.
        private_paths=tuple(entry for entry in _private_paths(run, config) if entry[0] != base_model),
    )


def public_name(name: str) -> str:
    """A Hub id, or a name that medtune knows, as it is; of a local path its last component."""
    return one_line((PureWindowsPath(name) if "\\" in name else PurePath(name)).name if is_local(name) else name)


def public_source(config: Config) -> str:
    """The names of the configuration's sources."""
    return " + ".join(public_name(source.source) for source in config.data.all_sources)


def without_paths(text: str) -> str:
    """`text` with every path that starts at a root cut down to its last part, and tokens of the Hub left out."""
    return _TOKEN.sub("hf_…", _PATH.sub(lambda path: path[1] or "…", harmless(text)))


def is_local(name: str) -> bool:
    """Whether `name` is a path on this machine, or was one on another."""
    if name in (DEMO_MODEL, DEMO_SOURCE):
        return False
    looks = name.startswith(_LOCAL_START) or name.lower().endswith(TABLE_SUFFIXES) or "\\" in name
    return looks or name.count("/") > 1 or os.path.exists(name)


def public_config(config: Config, names: PublicNames) -> Config:
    """`config` without paths of this machine, and without the private repository that kept its checkpoints."""
    data, evaluation = config.data, config.evaluation
    prompt = names.scrub(data.system_prompt)
    model = {"base": names.base, "adapter": config.model.adapter and public_name(config.model.adapter)}
    if names.base_revision is not None:
        model["revision"] = names.base_revision
    test_source = data.test_source and public_name(data.test_source)
    sources = tuple(part.model_copy(update={"source": public_name(part.source)}) for part in data.sources)
    source = sources[0].source if sources else names.source
    rows = {"source": source, "sources": sources, "test_source": test_source, "system_prompt": prompt}
    return config.model_copy(
        update={
            "model": config.model.model_copy(update=model),
            "data": data.model_copy(update=rows),
            "training": config.training.model_copy(update={"push_checkpoints_to": None}),
            "evaluation": evaluation.model_copy(update={"bertscore_model": public_name(evaluation.bertscore_model)}),
        }
    )


def _private_paths(run: RunDir, config: Config) -> tuple[tuple[str, str], ...]:
    given = (
        config.model.base,
        config.model.adapter,
        *(source.source for source in config.data.all_sources),
        config.data.test_source,
        config.evaluation.bertscore_model,
    )
    local = [name for name in given if name and is_local(name)]
    places = {
        path: public_name(path) for name in [*local, str(run.path)] for path in (name.rstrip("/\\"), *_whole(name))
    }
    # A home of one part, such as /root, is many people's: alone it tells nothing, and may be a word of a text.
    homes = [home for home in _whole("~") if len(home) > 1]
    places |= dict((home, "~") if home.count(os.sep) > 1 else (f"{home}/", "~/") for home in homes)
    found = {
        write(path): write(name)
        for place, name in places.items()
        for path in (place, place.replace("\\", "/"))
        for write in (str, html.escape, partial(_in_json, ensure_ascii=False), _in_json)
    }
    paths = [(path, name) for path, name in found.items() if path.strip("/\\") and ("/" in path or "\\" in path)]
    return tuple(sorted(paths, key=lambda item: (-len(item[0]), item[0])))


def _whole(path: str) -> tuple[str, str]:
    """`path` from the root on, as it is called and as it is where links are followed."""
    return os.path.abspath(os.path.expanduser(path)), os.path.realpath(os.path.expanduser(path))


def _in_json(text: str, *, ensure_ascii: bool = True) -> str:
    return json.dumps(text, ensure_ascii=ensure_ascii)[1:-1]
