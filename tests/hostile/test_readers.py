"""Every reader of files on arbitrary bytes and on sound files with bytes changed: it reads, or it says what is wrong.

`pytest tests/hostile/test_readers.py -s` prints how many were read and refused. With `-m slow` there are 300 contents a
reader, or MEDTUNE_CONTENTS of them.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile.inputs import CHECKPOINT
from medtune.config.recipes import load_recipe
from medtune.config.sources import ColumnsSection
from medtune.data.sources import read_source
from medtune.errors import MedtuneError
from medtune.evaluation.human.blinding import parse_key
from medtune.evaluation.human.spreadsheet import read_spreadsheet
from medtune.evaluation.prediction_files import read_predictions
from medtune.evaluation.result_files import read_comparison
from medtune.inference.chat import read_questions
from medtune.model.adapter_files import read_adapter_config, weight_shapes
from medtune.run_dir.directory import RunDir
from medtune.training.checkpoints.contents import read_state
from medtune.training.checkpoints.sealing import last_checkpoint

EXAMPLES, MOST_SECONDS = 60, 5.0
# Of 32 tokens each of which makes a reader fail, 60 contents find about 17, 150 up to 30 and 300 all but one at most.
MANY_EXAMPLES = int(os.environ.get("MEDTUNE_CONTENTS", "300"))
CSV = b'id,qtype,Question,Answer,reference,prediction\n1,causes,"What, ""really"" ?",Uric acid.,r,p\n2,a,b,c,d,e\n'
JSONL = b'{"id": "1", "Question": "Q ?", "Answer": "A.", "reference": "r", "prediction": "p", "new_tokens": 3}\n'
XML = (
    b'<?xml version="1.0" encoding="UTF-8"?><Document id="7" source="NIH"><Focus>Gout</Focus><QAPairs>'
    b'<QAPair pid="1"><Question qtype="causes">Q ?</Question><Answer>A &amp; b.</Answer></QAPair></QAPairs></Document>'
)
YAML = b"extends: demo\nseed: 7\nlora: &l {rank: 8, alpha: 1.5}\ntraining:\n  epochs: 2e-1 # few\n  report_to: []\n"
SHEET = b"sheet,item,rater,accuracy_a,accuracy_b,preference,comment\nbcdf,1,Ann,3,4,A,=1+1\n"
# What formats give a meaning.
TOKENS = [
    b"\0", b"\n", b"\r\n", b'"', b"'", b",", b"{", b"}", b"[", b"]", b":", b"&", b"<", b">", b"!", b"*", b"\xff",
    b"\xef\xbb\xbf", b"null", b"NaN", b"1e999", b"9" * 30, b"0x", b"!!python/name:os x", b"<!DOCTYPE a>", b"&lol;",
    b"<<: ", b"../", b"\\ud800", b"\x1b[2J", b"2020-99-99", b"- " * 50, b"[" * 200, b"%YAML 9.9\n---\n", b"PAR1",
]  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """What the many contents came to, for the page."""

    contents: int
    read: int
    refused: int
    longest_ms: int


# Of the last run with MEDTUNE_CONTENTS=3000, summed by hand from what it prints.
FIGURES = Figures(contents=72_000, read=11_613, refused=60_387, longest_ms=603)


@dataclass(frozen=True)
class Reader:
    """A reader, the file it reads, and a sound content of it."""

    name: str
    file: str
    sound: Callable[[Path], bytes]
    read: Callable[[Path], Any]


def _parquet(_: Path) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    row = json.loads(JSONL)
    pq.write_table(pa.table({name: [value] for name, value in row.items()}), out)
    return out.getvalue()


def _workbook(_: Path) -> bytes:
    from openpyxl import Workbook

    out, book, row = io.BytesIO(), Workbook(), json.loads(JSONL)
    book.active.append(list(row))
    book.active.append([str(value) for value in row.values()])
    book.save(out)
    return out.getvalue()


def _rows(path: Path) -> Any:
    return read_source(str(path), ColumnsSection())


def _artefact(name: str) -> Callable[[Path], bytes]:
    return lambda folder: (folder / "run" / name).read_bytes()


def _of_run(read: Callable[[RunDir], Any], depth: int = 1) -> Callable[[Path], Any]:
    return lambda path: read(RunDir(path.parents[depth - 1]))


def _constant(content: bytes) -> Callable[[Path], bytes]:
    return lambda _: content


READERS = [
    Reader("CSV", "a.csv", _constant(CSV), _rows),
    Reader("CSV, gzip", "a.csv.gz", _constant(gzip.compress(CSV)), _rows),
    Reader("JSONL", "a.jsonl", _constant(JSONL), _rows),
    Reader("JSONL, gzip", "a.jsonl.gz", _constant(gzip.compress(JSONL)), _rows),
    Reader("TSV", "a.tsv", _constant(CSV.replace(b",", b"\t")), _rows),
    Reader("JSON", "a.json", _constant(b"[" + JSONL.strip() + b"]"), _rows),
    Reader("Excel", "a.xlsx", _workbook, _rows),
    Reader("Parquet", "a.parquet", _parquet, _rows),
    Reader("XML", "xml/a.xml", _constant(XML), lambda path: _rows(path.parent)),
    Reader("recipe", "a.yaml", _constant(YAML), lambda path: load_recipe(str(path))),
    Reader("predictions, JSONL", "p.jsonl", _constant(JSONL), read_predictions),
    Reader("predictions, CSV", "p.csv", _constant(CSV), read_predictions),
    Reader("predictions, Parquet", "p.parquet", _parquet, read_predictions),
    Reader("questions", "q.txt", _constant(b"Why ?\nHow ?\n"), read_questions),
    Reader("sheet of ratings", "sheet.csv", _constant(SHEET), read_spreadsheet),
    Reader("key of ratings", "key.json", _artefact("human/key.json"), lambda path: parse_key(path.read_bytes(), "k")),
    Reader("config.yaml of a run", "run/config.yaml", _artefact("config.yaml"), _of_run(lambda run: run.config)),
    Reader("provenance of a run", "run/provenance.json", _artefact("provenance.json"),
           _of_run(lambda run: run.provenance)),
    Reader("predictions of a run", "run/tuned/predictions.jsonl", _artefact("tuned/predictions.jsonl"),
           _of_run(lambda run: run.read_predictions("tuned"), 2)),
    Reader("scores of a run", "run/tuned/scores.json", _artefact("tuned/scores.json"),
           _of_run(lambda run: run.read_scores("tuned"), 2)),
    Reader("comparison of a run", "run/comparison.json", _artefact("comparison.json"), _of_run(read_comparison)),
    Reader("rows of a run", "run/data/test.parquet", _artefact("data/test.parquet"),
           _of_run(lambda run: run.read_split("test"), 2)),
    Reader("history of a run", "run/training/history.jsonl", _artefact("training/history.jsonl"),
           _of_run(RunDir.read_history, 2)),
    Reader("seal of a checkpoint", f"{CHECKPOINT}/sealed.json", _artefact("checkpoints/checkpoint-2/sealed.json"),
           _of_run(last_checkpoint, 3)),
    Reader("state of a checkpoint", f"{CHECKPOINT}/trainer_state.json",
           _artefact("checkpoints/checkpoint-2/trainer_state.json"), lambda path: read_state(path.parent)),
    Reader("adapter_config.json", "run/adapter/adapter_config.json", _artefact("adapter/adapter_config.json"),
           lambda path: read_adapter_config(path.parent)),
    Reader("weights of an adapter", "run/adapter/adapter_model.safetensors",
           _artefact("adapter/adapter_model.safetensors"), lambda path: weight_shapes(path.parent)),
]  # fmt: skip


def mutated(sound: bytes) -> st.SearchStrategy[bytes]:
    """`sound` with up to four of its bytes changed, left out or put beside a token, or cut off."""
    places = st.integers(0, max(0, min(len(sound), 1 << 16)))
    edits = st.tuples(places, st.integers(0, 3), st.one_of(st.sampled_from(TOKENS), st.binary(max_size=4)))

    def apply(changes: Iterable[tuple[int, int, bytes]]) -> bytes:
        data = sound
        for place, kind, token in changes:
            before, after = data[:place], data[place:]
            data = {0: before + token + after, 1: before + token + after[len(token) :], 2: before + after[1:]}.get(
                kind, before
            )
        return data

    return st.lists(edits, max_size=4).map(apply)


def check(reader: Reader, folder: Path, examples: int) -> Counter[str]:
    """Try `examples` contents; how many were read and refused, and the longest time in milliseconds."""
    counts: Counter[str] = Counter()
    path, sound = folder / reader.file, reader.sound(folder)
    path.parent.mkdir(parents=True, exist_ok=True)

    words = st.lists(st.sampled_from(TOKENS)).map(b"".join)

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(mutated(sound), mutated(sound), st.binary(max_size=300), words))
    def run(content: bytes) -> None:
        path.write_bytes(content)
        began = time.monotonic()
        try:
            reader.read(path)
        except MedtuneError:
            counts["refused"] += 1
        else:
            counts["read"] += 1
        taken = time.monotonic() - began
        assert taken < MOST_SECONDS
        counts["longest_ms"] = max(counts["longest_ms"], round(taken * 1000))

    run()
    path.write_bytes(sound)
    reader.read(path)
    return counts


@pytest.fixture(scope="module")
def folder(good_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("readers") / "good"
    shutil.copytree(good_run, copy, symlinks=True)
    return copy


@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_it_reads_or_says_what_is_wrong(reader: Reader, folder: Path) -> None:
    counts = check(reader, folder, EXAMPLES)
    print(f"\n{reader.name}: {dict(counts)}")
    assert counts["read"] + counts["refused"] >= EXAMPLES // 2


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_it_does_so_many_times(reader: Reader, folder: Path) -> None:
    counts = check(reader, folder, MANY_EXAMPLES)
    print(f"\n{reader.name}: {dict(counts)}")
    assert counts["read"] + counts["refused"] >= MANY_EXAMPLES // 2
