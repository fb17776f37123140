"""Names that may be shown to anybody: of a local path its last part alone, and no token of the Hub."""

from __future__ import annotations

import re
from typing import Any

from medtune.config import Config
from medtune.terminal import harmless

# A path from a root, a home or a drive. What stands before it must not make it part of a word, an address or a ratio.
_PATH = re.compile(
    r"(?<![\w/.~-])(?:~|[A-Za-z]:|\\)?[/\\](?:[^\s/\\:;,|'\"<>()\[\]{}]+[/\\])+([^\s/\\:;,|'\"<>()\[\]{}]*)"
)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
_LOCAL = re.compile(r"^(?:[~/\\.]|[A-Za-z]:[/\\])|\\")


def shown_name(name: str) -> str:
    """What a model, a data source or a file is called: a Hub id as it is, of a path its last part."""
    if _LOCAL.search(name) or name.count("/") > 1:
        return next((part for part in re.split(r"[/\\]", name)[::-1] if part), name)
    return without_paths(name)


def without_paths(text: str) -> str:
    """`text` with every path that starts at a root cut down to its last part, and tokens of the Hub left out."""
    return _TOKEN.sub("hf_…", _PATH.sub(lambda path: path[1] or "…", harmless(text)))


def shown_config(config: Config) -> Config:
    """`config` as it may be published: what may be a path of this machine by its last part."""
    model, data, evaluation = config.model, config.data, config.evaluation
    return config.model_copy(
        update={
            "model": model.model_copy(update=_names(model, "base", "adapter")),
            "data": data.model_copy(update=_names(data, "source", "test_source")),
            "evaluation": evaluation.model_copy(update=_names(evaluation, "bertscore_model")),
        }
    )


def _names(section: Any, *keys: str) -> dict[str, str]:
    return {key: shown_name(value) for key in keys if (value := getattr(section, key)) is not None}
