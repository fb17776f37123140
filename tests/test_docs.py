"""README and docs stay true: their commands parse, their recipes resolve, their generated pages are current."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import reference
import typer

from medtune.cli import app
from medtune.config.recipes import load_recipe, shipped_recipes
from medtune.config.schema import Config
from medtune.runtime.interruption import INTERRUPTED_STATUS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HAND_WRITTEN = [page for page in PAGES if page.name not in ("cli.md", "config.md")]


def blocks(page, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


COMMANDS = [
    (page.name, line.split("-m medtune ")[-1].removeprefix("medtune "))
    for page in HAND_WRITTEN
    for block in blocks(page, "console")
    for line in block.splitlines()
    if line.startswith("medtune ") or "-m medtune " in line
]


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_parse(page, command):
    """Every argument and option of a shown command exists, and its recipe and overrides resolve."""
    context = typer.main.get_command(app)
    arguments = shlex.split(command)
    while hasattr(context, "commands"):
        name = arguments.pop(0)
        assert name in context.commands, f"{page}: no command {name}"
        context = context.commands[name]
    parsed = context.make_context("medtune", arguments).params
    if parsed.get("recipe"):
        load_recipe(parsed["recipe"], parsed.get("overrides") or [])


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=lambda page: page.name)
def test_yaml_examples_resolve(page, tmp_path):
    for number, text in enumerate(blocks(page, "yaml")):
        recipe = tmp_path / f"{number}.yaml"
        recipe.write_text(text)
        assert isinstance(load_recipe(str(recipe)), Config)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_generated_pages_are_current(tmp_path):
    reference.write_pages(tmp_path)
    for name in ("config.md", "cli.md"):
        assert (tmp_path / name).read_text() == (ROOT / "docs" / name).read_text(), f"run `make docs`: {name} is stale"


def test_contributing_names_every_module_once_with_what_it_does():
    page = reference.CONTRIBUTING.read_text(encoding="utf-8")
    assert reference.with_tree(page) == page, "run `make docs`: CONTRIBUTING.md is stale"
    entries = re.findall(r"^ *- `([\w./]+)` (.*)$", page.split("<!-- tree -->")[1].split("<!-- /tree -->")[0], re.M)
    assert sorted(name for name, _ in entries) == sorted(map(_as_listed, reference.PACKAGE.rglob("*.py")))
    assert [name for name, text in entries if not text] == []


def _as_listed(module):
    in_room = module.name == "__init__.py" and module.parent.name != "medtune"
    return f"{module.parent.name}/" if in_room else module.name


def test_contributing_names_files_that_exist():
    text = re.sub(r"<!-- tree -->.*<!-- /tree -->", "", reference.CONTRIBUTING.read_text(encoding="utf-8"), flags=re.S)
    # A part that is marked speaks of what is being built.
    parts = [part for part in re.split(r"\n(?=\n|\d\. |\| )", text) if "<!-- check -->" not in part]
    for name in re.findall(r"`([a-z_]+/[a-z_/]+\.(?:py|md))`", "\n".join(parts)):
        assert (ROOT / name).is_file() or (reference.PACKAGE / name).is_file(), name


def test_readme_lists_every_recipe_and_make_target():
    text = (ROOT / "README.md").read_text()
    assert set(re.findall(r"^\| `([\w.-]+)` \|", text, re.M)) == set(shipped_recipes())
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    used = {line.split()[1] for block in blocks(ROOT / "README.md", "console") for line in block.splitlines()
            if line.startswith("make ")}  # fmt: skip
    assert {"demo", "test"} <= used <= targets


def test_readme_shows_a_demo_table_of_this_recipe():
    text = (ROOT / "README.md").read_text().split("<!-- demo -->")[1].split("<!-- /demo -->")[0]
    metrics = [*load_recipe("demo").evaluation.metrics, "bits_per_byte"]
    table = text.split("95 % interval")[1].split("unclear:")[0]
    assert [line.split()[0] for line in table.splitlines() if line[:1].isalpha()] == metrics
    # The counts that the text states, and the first lines that it speaks of.
    assert "on the same 56 rows" in text
    assert "Tuning does not beat a random training answer" in text


TROUBLE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
PAINS = re.split(r"^### (\d+)\. ", TROUBLE, flags=re.M)
TEST_NAMES = r"`(tests/[\w/]+\.py)::(\w+)`"


def test_troubleshooting_has_nineteen_pains_in_four_parts_each():
    assert [int(number) for number in PAINS[1::2]] == list(range(1, 20))
    for number, text in zip(PAINS[1::2], PAINS[2::2], strict=True):
        parts = re.findall(r"^- \*\*(Elsewhere|medtune|You|Held by)\*\*", text, re.M)
        assert parts == ["Elsewhere", "medtune", "You", "Held by"], number
        elsewhere, _, held = text.partition("- **medtune**")
        assert re.search(r"[\w-]+ #\d+", elsewhere), f"pain {number} names no thread"
        assert re.search(TEST_NAMES, held.partition("- **Held by**")[2]), f"pain {number} names no test"


@pytest.mark.parametrize("file", sorted({file for file, _ in re.findall(TEST_NAMES, TROUBLE)}))
def test_troubleshooting_names_tests_that_exist(file):
    functions = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
    defined = {node.name for node in functions if isinstance(node, ast.FunctionDef)}
    named = {name for other, name in re.findall(TEST_NAMES, TROUBLE) if other == file}
    assert named <= defined, f"{file} has no {', '.join(sorted(named - defined))}"
    # Each is written in this form, or it would not be looked for.
    assert TROUBLE.count("::test_") == len(re.findall(TEST_NAMES, TROUBLE))


def test_troubleshooting_names_keys_modules_anchors_and_statuses_that_exist():
    schema = Config.model_json_schema()
    for path in re.findall(r"\b((?:model|data|lora|training|generation|evaluation)(?:\.[a-z_]+)+)\b", TROUBLE):
        if path.endswith(".md"):  # a page
            continue
        section = schema
        for key in path.split("."):
            section = schema["$defs"][section["$ref"].split("/")[-1]] if "$ref" in section else section
            assert key in section["properties"], path
            section = section["properties"][key]
    for module in re.findall(r"`([\w/]+\.py)`", TROUBLE):
        assert (ROOT / "src" / "medtune" / module).is_file(), module
    headings = re.findall(r"^#+ (.+)$", TROUBLE, re.M)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", TROUBLE)) <= anchors
    table = TROUBLE.split("| exit status |")[1].split("\n\n")[0]
    assert re.findall(r"^\| ([\d, ]+) \|", table, re.M) == ["0", "1", "2", str(INTERRUPTED_STATUS), "130, 143"]
