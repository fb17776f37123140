"""Which chat template a tokenizer writes with: its own, one of several, an adapter's, a file's or a known one of ours.

The templates beside this file are ours, written after the families' published layouts.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

from medtune.config.schema import ModelSection
from medtune.errors import ModelError, Option
from medtune.storage.reading import DamagedError, parse_json, read_mapping, read_text

TEMPLATE_NAME = "chat_template.jinja"
_ENDING = ".jinja"


def known_templates() -> tuple[str, ...]:
    """The names that `model.chat_template` knows whatever the model."""
    names = (entry.name for entry in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(_ENDING) for name in names if name.endswith(_ENDING)))


def give_template(tokenizer: Any, section: ModelSection) -> str:
    """Give `tokenizer` the one template that it writes with, and say where that is from; empty where it has no other.

    A name in `section.chat_template` is looked up among the tokenizer's own templates, then ours, then files. A base
    without a template takes that of the adapter that it starts from. Raises ModelError.
    """
    own = tokenizer.chat_template
    named: dict[str, str] = own if isinstance(own, dict) else {}
    if (wanted := section.chat_template) is not None:
        if wanted in named:
            tokenizer.chat_template = named[wanted]
            return f"{wanted}, one of {', '.join(named)}"
        if wanted in known_templates():
            tokenizer.chat_template = (files(__name__) / f"{wanted}{_ENDING}").read_text(encoding="utf-8")
            return f"{wanted}, as medtune writes it"
        tokenizer.chat_template = _read_file(wanted, [*named, *known_templates()])
        return f"from {Path(wanted).name}"
    if "default" in named and len(named) > 1:
        tokenizer.chat_template = named["default"]
        return f"default, one of {', '.join(named)}"
    if not own and section.adapter is not None and (found := _adapter_template(section.adapter)):
        tokenizer.chat_template = found
        return "the adapter's, since the base has none"
    return ""


def _adapter_template(adapter: str) -> str | None:
    """The template in an adapter's folder, in a file of its own or in its tokenizer's settings; None if it has none."""
    from medtune.model.adapters import resolve_adapter

    folder = resolve_adapter(adapter)
    if (file := folder / TEMPLATE_NAME).is_file():
        return _read_file(str(file), ())
    try:
        template = read_mapping(folder / "tokenizer_config.json").get("chat_template")
    except FileNotFoundError:
        return None
    except DamagedError as error:
        raise ModelError(folder, f"its tokenizer_config.json cannot be used ({error})") from None
    return template if isinstance(template, str) else None


def _read_file(name: str, known: Any) -> str:
    """The template in a file of jinja, or in JSON as transformers' `chat_template.json`. Raises ModelError."""
    path = Path(name)
    if not path.is_file():
        fix = ("give a jinja file or one of ", ", ".join(known))
        raise ModelError(Option("set", f"model.chat_template={name}"), "no such template and no such file", fix)
    try:
        text = read_text(path)
        values = parse_json(text) if path.suffix == ".json" else {"chat_template": text}
    except DamagedError as error:
        raise ModelError(path, f"cannot be used as a chat template ({error})", "give one in jinja") from None
    template = values.get("chat_template") if isinstance(values, dict) else None
    if not isinstance(template, str) or not template.strip():
        raise ModelError(path, "holds no chat template", "give one in jinja")
    return template
