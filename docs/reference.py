"""Writes docs/config.md and docs/cli.md, and the tree of CONTRIBUTING.md: `python docs/reference.py docs`."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticUndefined

from medtune.config.schema import Config

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "medtune"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"


def config_page() -> str:
    """Every configuration key with its type, default and meaning, as Markdown."""
    lines = [
        "# Configuration",
        "",
        "Generated from the schema by `make docs`. Unknown keys are refused; all problems are reported together.",
        "`medtune config RECIPE` prints a recipe with every key written out; `--set key.path=value` overrides one.",
        "",
    ]
    top = {name: field for name, field in Config.model_fields.items() if not _section(field)}
    lines += ["## Top level", "", *_rows(top, "")]
    for name, field in Config.model_fields.items():
        if section := _section(field):
            lines += ["", f"## `{name}`", "", f"{section.__doc__}", "", *_rows(section.model_fields, f"{name}.")]
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """Every command with its arguments and options, as Markdown."""
    import typer
    from typer.cli import get_docs_for_click

    from medtune.cli import app

    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name="medtune", **command.context_settings)
    text = get_docs_for_click(obj=command, ctx=context, name="medtune", title="Commands")
    return text.rstrip() + "\n"


def write_pages(folder: Path) -> None:
    """Write both pages to `folder`."""
    for name, text in (("config.md", config_page()), ("cli.md", cli_page())):
        (folder / name).write_text(text, encoding="utf-8")


def tree() -> str:
    """Every module of the package with the first sentence of its docstring, from the top layer down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    lines = [f"- `__init__.py` {_first_sentence(PACKAGE / '__init__.py')}"]
    for layer in contracts["contracts"][0]["layers"]:
        for name in layer.split(" | "):
            room = PACKAGE / name
            lines += _room(room, 0) if room.is_dir() else [f"- `{name}.py` {_first_sentence(room.with_suffix('.py'))}"]
    return "\n".join(lines) + "\n"


def with_tree(page: str) -> str:
    """The text of CONTRIBUTING.md with the tree as it is now."""
    return re.sub(r"(<!-- tree -->\n).*(<!-- /tree -->)", lambda marks: marks[1] + tree() + marks[2], page, flags=re.S)


def _room(folder: Path, depth: int) -> list[str]:
    indent = "  " * depth
    lines = [f"{indent}- `{folder.name}/` {_first_sentence(folder / '__init__.py')}"]
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.is_dir() and (path / "__init__.py").exists():
            lines += _room(path, depth + 1)
        elif path.suffix == ".py" and path.name != "__init__.py":
            lines.append(f"{indent}  - `{path.name}` {_first_sentence(path)}")
    return lines


def _first_sentence(module: Path) -> str:
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=\.)\s", docstring, maxsplit=1)[0].replace("\n", " ")


def _section(field: Any) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _rows(fields: dict[str, Any], prefix: str) -> list[str]:
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"] if fields else []
    for name, field in fields.items():
        if section := _section(field):
            # One row for the section, then its keys under their dotted names.
            nested = _rows(section.model_fields, f"{prefix}{name}.")
            rows += nested[2:]
            continue
        rows.append(f"| `{prefix}{name}` | {_type(field)} | {_default(field)} | {_cell(field.description)} |")
    return rows


def _type(field: Any) -> str:
    kind: Any = field.annotation
    for constraint in field.metadata:
        kind = Annotated[kind, constraint]
    return _cell(_schema_type(TypeAdapter(kind).json_schema()))


def _schema_type(schema: dict[str, Any]) -> str:
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(map(_schema_type, options))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "value")
    if kind == "array":
        return f"list of {_schema_type(schema.get('items', {}))}"
    if kind == "object":
        return "mapping"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]}" for key, sign in bounds.items() if key in schema]
    names = {"string": "text", "null": "none", "integer": "integer", "number": "number", "boolean": "true or false"}
    return " ".join([names.get(kind, kind), ", ".join(limits)]).strip()


def _default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "required"
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
    CONTRIBUTING.write_text(with_tree(CONTRIBUTING.read_text(encoding="utf-8")), encoding="utf-8")
