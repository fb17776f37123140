"""MedQuAD's real rows, read, cleaned, compared and split once for all tests of the data stage."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from medtune.config.schema import parse_config
from medtune.config.sources import ColumnsSection
from medtune.data.cleaning import Cleaned, clean_pairs
from medtune.data.near_duplicates import SimilarAnswers
from medtune.data.preparation import Prepared, prepare_data
from medtune.data.sources import SourceRows, read_source


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of what half a minute's work makes of MedQuAD are slow."""
    for item in items:
        if {"once", "prepared_table"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def medquad(shared_data: Path) -> SourceRows:
    return read_source(str(shared_data / "medquad.parquet"), ColumnsSection())


@pytest.fixture(scope="session")
def medquad_hub_shape(shared_data: Path) -> SourceRows:
    return read_source(str(shared_data / "medquad_hub_shape.csv.gz"), ColumnsSection())


@pytest.fixture(scope="session")
def once(cache_folder: Path) -> Callable[[str, Callable[[], Any]], Any]:
    """A function that makes something under a name, once for all processes of the tests."""

    def find(name: str, make: Callable[[], Any]) -> Any:
        file = cache_folder / f"{name}.pickle"
        with FileLock(f"{file}.lock"):
            if not file.exists():
                file.write_bytes(pickle.dumps(make()))
        return pickle.loads(file.read_bytes())  # noqa: S301

    return find


@pytest.fixture(scope="session")
def medquad_cleaned(medquad: SourceRows, once: Callable[[str, Callable[[], Any]], Any]) -> Cleaned:
    cleaned: Cleaned = once("cleaned", lambda: clean_pairs(medquad.pairs))
    return cleaned


@pytest.fixture(scope="session")
def prepared_once(shared_data: Path, once: Callable[[str, Callable[[], Any]], Any]) -> Callable[[str], Prepared]:
    """A function that prepares a table of the folder, half a minute's work."""

    def prepare(name: str) -> Prepared:
        values = {"model": {"base": "owner/model"}, "data": {"source": str(shared_data / name)}}
        prepared: Prepared = once(name, lambda: prepare_data(parse_config(values, origin="test")))
        return prepared

    return prepare


@pytest.fixture(scope="session")
def medquad_prepared(prepared_once: Callable[[str], Prepared]) -> Prepared:
    """The split that a run makes of the table with documents and topics."""
    return prepared_once("medquad.parquet")


@pytest.fixture(scope="session")
def medquad_similar(medquad_prepared: Prepared) -> SimilarAnswers:
    """Which of MedQuAD's cleaned rows answer alike, in their order."""
    return medquad_prepared.similar


@pytest.fixture(scope="session")
def hub_prepared(prepared_once: Callable[[str], Prepared]) -> Prepared:
    """The split that a user of the public Hub set gets, which names neither documents nor topics."""
    return prepared_once("medquad_hub_shape.csv.gz")
