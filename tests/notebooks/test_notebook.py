"""The notebook runs from top to bottom, with the demo on a tiny model; and is kept without outputs."""

from __future__ import annotations

import ast
import importlib.util
import io
import os
import re
import sys
from collections.abc import Callable
from html import unescape
from importlib.machinery import PathFinder
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

import medtune
from medtune.config.recipes import load_recipe
from tiny_model import Tiny, write_rows

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "llama3_medquad_qlora.ipynb"
# A demo of seconds, whose model and rows are tiny too.
OVERRIDES = {
    "training.max_steps": 6,
    "generation.max_new_tokens": 24,
    "evaluation": {"max_examples": 6, "resamples": 500, "metrics": ["bleu", "rougeL", "perplexity"]},
}


def read() -> nbformat.NotebookNode:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_is_kept_without_outputs():
    for cell in code_cells(read()):
        assert cell.outputs == []
        assert cell.execution_count is None


def test_it_uses_the_public_interface_alone():
    sources = "\n".join(cell.source for cell in code_cells(read()))
    python = "\n".join(line for line in sources.splitlines() if not line.strip().startswith("%"))
    for node in ast.walk(ast.parse(python)):
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("medtune")
        if isinstance(node, ast.Import):
            assert all(name.name == "medtune" or not name.name.startswith("medtune") for name in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "medtune":
            assert node.attr in (*medtune.__all__, "__version__")


def choices(recipe: str | None = None) -> dict[str, Any]:
    """The values of the cell of choices, with another recipe written into it or as it is kept."""
    cell = next(cell for cell in code_cells(read()) if "parameters" in cell.metadata.get("tags", []))
    values: dict[str, Any] = {}
    exec(re.sub(r'(?<=^RECIPE = )"[^"]*"', repr(recipe), cell.source, flags=re.M) if recipe else cell.source, values)
    return values


def test_it_is_a_rehearsal_until_one_cell_is_changed():
    assert choices()["RECIPE"] == "demo"
    text = "\n".join(cell.source for cell in read().cells)
    assert '# or "llama3-8b-t4"' in text
    assert len(re.findall(r"^RECIPE = ", text, re.M)) == 1


def test_every_recipe_has_a_folder_of_its_own():
    folders = {choices(recipe)["RUN_DIR"] for recipe in ("demo", "llama3-8b-t4")}
    assert folders == {"runs/demo", "runs/llama3-8b-t4"}


def finders() -> dict[str, Any]:
    """What the cell that installs defines, without the installing."""
    cell = next(cell for cell in code_cells(read()) if "%pip" in cell.source)
    values: dict[str, Any] = {}
    exec(cell.source.partition("\nif not is_installed()")[0], values)
    return values


def test_it_installs_the_copy_that_it_lies_in_or_that_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    find = finders()["copy_of_medtune"]
    monkeypatch.chdir(ROOT / "notebooks")
    assert find() == str(ROOT)
    clone = tmp_path / "work" / "medtune"
    (clone / "src" / "medtune").mkdir(parents=True)
    monkeypatch.chdir(clone.parent)
    assert find() is None  # no project
    (clone / "pyproject.toml").touch()
    assert find() == str(clone)
    monkeypatch.chdir(tmp_path)
    assert find() is None


def test_a_folder_called_medtune_is_not_an_installed_medtune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    is_installed = finders()["is_installed"]
    assert is_installed()
    (tmp_path / "medtune").mkdir()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: PathFinder.find_spec(name, [str(tmp_path)]))
    assert not is_installed()


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "fileId=https%3A%2F%2Fgithub.com%2Fowner%2Fmed-tune%2Fblob%2Fmain%2Fnotebooks%2Fx.ipynb",
            "git+https://github.com/owner/med-tune@main",
        ),
        ("fileId=1AbC", None),
    ],
)
def test_it_installs_what_colab_opened_on_github(path: str, source: str | None):
    values = finders()
    values["urlopen"] = lambda url, timeout: io.BytesIO(f'[{{"path": "{path}"}}]'.encode())
    values["gethostbyname"] = lambda name: "172.28.0.12"
    assert values["opened_on_github"]() == source


def test_colab_that_does_not_say_is_no_error():
    def refuse(url: str, timeout: float) -> None:
        raise OSError

    values = finders()
    values["urlopen"] = refuse
    assert values["opened_on_github"]() is None


def test_the_pages_that_it_names_exist():
    text = "\n".join(cell.source for cell in read().cells if cell.cell_type == "markdown")
    names = {word.strip("`.,;:") for word in text.split() if word.startswith("`docs/")}
    assert names
    assert [name for name in names if not (ROOT / name).is_file()] == []


class MissingError(Exception):
    """What the fake services of secrets raise."""


def refuse(name: str) -> str:
    raise MissingError(name)


def log_in(recipe: str, monkeypatch: pytest.MonkeyPatch, *, colab: bool, secret: Callable[[str], str]) -> None:
    """Run the cell that logs in, on Colab or Kaggle with that way to a secret."""
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace(userdata=SimpleNamespace(get=secret)))
    client = SimpleNamespace(UserSecretsClient=lambda: SimpleNamespace(get_secret=secret))
    monkeypatch.setitem(sys.modules, "kaggle_secrets", client)
    cell = next(cell for cell in code_cells(read()) if "notebook_login" in cell.source)
    names = {"ON_COLAB": colab, "ON_KAGGLE": not colab, "RECIPE": recipe, "OVERRIDES": {}, "PUBLISH_TO": ""}
    exec(cell.source, {"medtune": medtune, "os": os, **names})


@pytest.mark.parametrize(
    ("colab", "told"),
    [(True, "Secrets (the key on the left), with the name HF_TOKEN"), (False, "Add-ons > Secrets, with the label HF")],
)
def test_a_token_that_is_not_stored_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], colab: bool, told: str
):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    log_in("llama3-8b-t4", monkeypatch, colab=colab, secret=refuse)
    assert told in capsys.readouterr().out
    log_in("smollm2-135m", monkeypatch, colab=colab, secret=refuse)  # which needs none
    assert capsys.readouterr().out == ""
    assert "HF_TOKEN" not in os.environ
    monkeypatch.setenv("HF_TOKEN", "")  # so that what the cell sets ends with this test
    log_in("llama3-8b-t4", monkeypatch, colab=colab, secret=lambda name: f"hf_of_{name}")
    assert os.environ["HF_TOKEN"] == "hf_of_HF_TOKEN"


def test_the_cell_of_choices_names_a_first_model_without_an_account():
    assert 'or first "smollm2-135m", which needs no account' in "\n".join(cell.source for cell in code_cells(read()))
    assert load_recipe("smollm2-135m").model.base.startswith("HuggingFaceTB/")


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path):
    from nbclient import NotebookClient

    notebook = read()
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    smaller = {"model.base": str(tiny.path), "data.source": str(write_rows(tmp_path / "rows.csv")), **OVERRIDES}
    parameters = {"RECIPE": "demo", "RUN_DIR": "runs/notebook", "OVERRIDES": smaller}
    values = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(values))
    for name in ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")  # or it asks for one: the model is not built in
    assert os.environ["MEDTUNE_CACHE"] == str(cache_folder)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    run = medtune.load_run(tmp_path / "runs" / "notebook")
    assert "report" in run.stages
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    charts = [output for output in outputs if output.get("data", {}).get("text/html", "").lstrip().startswith("<svg")]
    assert len(charts) == 3
    pages = "".join(output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {}))
    assert "in order" in pages  # the doctor's summary
    assert any(word in pages for word in ("better", "worse", "equivalent", "cannot tell", "too few groups"))
    inline = next(re.findall(r'<iframe srcdoc="([^"]*)"', page) for page in pages.split("<div>") if "srcdoc" in page)
    assert [unescape(page) for page in inline] == [run.report.read_text(encoding="utf-8")]
    told = "".join(output.get("text", "") for output in outputs if output.output_type == "stream")
    assert "before:" in told
    assert "not published" in told
