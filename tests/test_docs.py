"""README and docs stay true: their commands parse, their recipes resolve, their generated pages are current."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import reference
import report_picture
import typer

from medtune.cli import app, recipes
from medtune.cli.scores import show_ending
from medtune.config.recipes import load_recipe, shipped_recipes
from medtune.config.schema import Config
from medtune.evaluation.result_files import read_comparison
from medtune.inference.chat import DEMO_BABBLES, NO_ADVICE
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


def test_the_index_leads_to_every_page():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {page.name for page in PAGES if page.parent.name == "docs"} - {"index.md"}
    assert pages <= set(re.findall(r"\]\(([\w-]+\.md)", index))


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


README = (ROOT / "README.md").read_text(encoding="utf-8")
ASK = 'medtune ask runs/demo "What are the symptoms of gout ?"'


def shown(command):
    """What README says that a command prints, line by line: the first text behind it."""
    return re.findall(r"^```text\n(.*?)^```", README.split(f"\n{command}\n```\n")[1], re.M | re.S)[0].splitlines()


def test_readme_is_short():
    assert len(README.splitlines()) <= 110
    for command in ("make demo", ASK, "medtune recipes --brief"):
        assert 1 <= len(shown(command)) <= 10, command


def test_docs_list_every_recipe_and_readme_the_make_targets():
    table = (ROOT / "docs" / "first-run.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w.-]+)` \|", table, re.M)) == set(shipped_recipes())
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    used = {line.split()[1] for block in blocks(ROOT / "README.md", "console") for line in block.splitlines()
            if line.startswith("make ")} | set(re.findall(r"`make ([a-z-]+)`", README))  # fmt: skip
    assert {"demo", "test", "test-all"} <= used <= targets


def test_readme_shows_what_recipes_prints(capsys):
    recipes(brief=True)
    assert shown("medtune recipes --brief") == capsys.readouterr().out.splitlines()


def test_readme_shows_how_the_demo_of_the_picture_ended(capsys, monkeypatch, tmp_path):
    """In the words of today; the digits are those of the stored run, so that they are the same on every machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    run = report_picture.unpack(Path("runs/demo"))
    assert run.config == load_recipe("demo")
    show_ending(read_comparison(run), run)
    assert shown("make demo") == capsys.readouterr().out.splitlines()


def test_readme_speaks_of_a_model_that_babbles_and_of_other_processors():
    between = " ".join(README.split("\nmake demo\n")[1].split(ASK)[0].split())
    assert "another processor rounds differently" in between
    assert "babbles by design" in between
    assert shown(ASK)[:2] == [NO_ADVICE, DEMO_BABBLES]


def test_the_picture_shows_the_report_of_today():
    """By what it is made from, and never by pixels, which differ from one browser to the next."""
    assert report_picture.STAMP.read_text() == report_picture.fingerprint() + "\n", (
        "docs/report.png is stale: run `python docs/report_picture.py`, look at it, and commit it with its stamp"
    )
    assert report_picture.PICTURE.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert report_picture.PICTURE.stat().st_size < 200_000
    assert report_picture.STORED.stat().st_size < 100_000


def test_the_stored_run_names_no_place_and_nobody(tmp_path):
    run = report_picture.unpack(tmp_path)
    for file in (run.config_file, run.provenance_file):
        assert not re.search(r"/(?:home|root|tmp|work|Users)\b|@", file.read_text(encoding="utf-8")), file.name


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


def test_the_page_of_inputs_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[a-z_]+/)+test_[a-z_]+\.py)`", page))
    assert len(named) > 30
    assert [name for name in sorted(named) if not (ROOT / "tests" / name).is_file()] == []
