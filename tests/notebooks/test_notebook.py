"""The notebook runs from top to bottom as a reader would run it, with the demo; and is kept without outputs."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import nbformat
import pytest

import medtune

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "llama3_medquad_qlora.ipynb"
# A demo of half a minute.
PARAMETERS = {
    "RECIPE": "demo",
    "RUN_DIR": "runs/notebook",
    "OVERRIDES": {
        "training.max_steps": 6,
        "generation.max_new_tokens": 24,
        "evaluation": {"max_examples": 6, "resamples": 500, "metrics": ["bleu", "rougeL", "perplexity"]},
    },
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


def test_every_recipe_has_a_folder_of_its_own():
    cell = next(cell for cell in code_cells(read()) if "parameters" in cell.metadata.get("tags", []))
    folders = set()
    for recipe in ("demo", "llama3-8b-t4"):
        values: dict[str, object] = {}
        exec(re.sub(r"^RECIPE = .*$", f"RECIPE = {recipe!r}", cell.source, flags=re.M), values)
        folders.add(values["RUN_DIR"])
    assert folders == {"runs/demo", "runs/llama3-8b-t4"}


def test_the_pages_that_it_names_exist():
    text = "\n".join(cell.source for cell in read().cells if cell.cell_type == "markdown")
    names = {word.strip("`.,;:") for word in text.split() if word.startswith("`docs/")}
    assert names
    assert [name for name in names if not (ROOT / name).is_file()] == []


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path):
    from nbclient import NotebookClient

    notebook = read()
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    values = "\n".join(f"{name} = {value!r}" for name, value in PARAMETERS.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(values))
    for name in ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
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
    assert "cannot tell" in pages or "better" in pages or "worse" in pages
    told = "".join(output.get("text", "") for output in outputs if output.output_type == "stream")
    assert "before:" in told
    assert "not published" in told
