"""MedQuAD's real rows, read and cleaned once for all tests of the data stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtune.config import ColumnsSection
from medtune.data.cleaning import Cleaned, clean_pairs
from medtune.data.sources import SourceRows, read_source


@pytest.fixture(scope="session")
def medquad(shared_data: Path) -> SourceRows:
    return read_source(str(shared_data / "medquad.parquet"), ColumnsSection())


@pytest.fixture(scope="session")
def medquad_hub_shape(shared_data: Path) -> SourceRows:
    return read_source(str(shared_data / "medquad_hub_shape.csv.gz"), ColumnsSection())


@pytest.fixture(scope="session")
def medquad_cleaned(medquad: SourceRows) -> Cleaned:
    return clean_pairs(medquad.pairs)
