"""The files of a run, written whole and checked as they are read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.errors import RunDirError
from medtune.records import Prediction, QAPair, Score, Split, Turn
from medtune.run_dir.artefacts import fewer_rows
from medtune.run_dir.directory import RunDir
from medtune.storage.writing import replacing_folder
from older_runs import forget_checksums

ODD_TEXT = 'two\nlines, "quotes", naïve — \u2028 \x85 \x1f and a 😀'


def contents(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def pair(id: str, **changes: str) -> QAPair:
    return QAPair(**({"id": id, "qtype": "causes", "question": f"Q {id} ?", "answer": ODD_TEXT} | changes))


def prediction(id: str, text: str = "An answer.") -> Prediction:
    return Prediction(id, "What is it ?", "A reference.", text, 3, "stop", 4.25, 5)


def test_splits_come_back_as_they_were_written(run: RunDir) -> None:
    split = Split(
        (pair("a", group="a", document_id="1/2", focus="gout", source="s"), pair("b")), (pair("c", qtype=""),), ()
    )
    run.write_split(split)
    run.complete("data", {})
    assert run.read_split("train") == list(split.train)
    assert run.read_split("validation") == list(split.validation)
    assert run.read_split("test") == []


def test_templates_and_raw_text_come_back_too(run: RunDir) -> None:
    marked = replace(pair("a", split="dev", raw_question="Q  ? ?", raw_answer=f" {ODD_TEXT} "), template=True)
    run.write_split(Split((marked, pair("b")), (), ()))
    run.complete("data", {})
    assert run.read_split("train") == [marked, pair("b")]
    assert pq.read_schema(run.split_file("train")).field("template").type == pa.bool_()


def test_a_split_of_an_older_version_is_read_without_the_newer_columns(run: RunDir) -> None:
    run.write_split(Split((pair("a"),), (), ()))
    run.complete("data", {})
    forget_checksums(run)
    table = pq.read_table(run.split_file("train"))
    pq.write_table(table.drop_columns(["template", "split", "raw_question"]), run.split_file("train"))
    assert run.read_split("train") == [pair("a")]


def test_turns_come_back_and_rows_without_any_take_no_column_more(run: RunDir) -> None:
    turns = (Turn("system", "Be brief."), Turn("user", ODD_TEXT), Turn("assistant", "Yes.", learned=False))
    plain, conversation = pair("a"), replace(pair("b"), turns=turns)
    run.write_split(Split((plain, conversation), (plain,), ()))
    assert run.read_rows(QAPair, run.split_file("train")) == [plain, conversation]
    assert run.read_rows(QAPair, run.split_file("validation")) == [plain]
    assert "turns" in pq.read_schema(run.split_file("train")).names
    assert "turns" not in pq.read_schema(run.split_file("validation")).names
    run.write_dropped([("dropped_short", conversation), ("dropped_short", plain)])
    first, second = map(json.loads, run.dropped_file.read_text(encoding="utf-8").strip().split("\n"))
    assert first["turns"][2] == {"role": "assistant", "content": "Yes.", "learned": False}
    assert "turns" not in second


def test_dropped_rows_are_kept_aside(run: RunDir) -> None:
    run.write_dropped([("dropped_short", pair("a", raw_question="Q ?", raw_answer="é\u2028 no"))])
    (line,) = run.dropped_file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert json.loads(line) == {
        "id": "a", "rule": "dropped_short", "raw_question": "Q ?", "raw_answer": "é\u2028 no",
    }  # fmt: skip
    run.write_dropped([])
    assert run.dropped_file.read_text(encoding="utf-8") == ""


@given(text=st.text())
def test_predictions_come_back_as_they_were_written(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = RunDir(tmp_path_factory.getbasetemp() / "predictions")
    written = [prediction("a", text), prediction("b", ODD_TEXT)]
    run.write_predictions("tuned", written)
    assert run.read_predictions("tuned") == written
    assert run.predictions_file("tuned").read_bytes().count(b"\n") == 2


def test_several_references_come_back_and_one_takes_no_field_more(run: RunDir) -> None:
    several = replace(prediction("b", "x"), reference="r", references=("r", "s"))
    run.write_predictions("tuned", [prediction("a", "x"), several])
    assert run.read_predictions("tuned")[1] == several
    lines = run.predictions_file("tuned").read_text(encoding="utf-8").splitlines()
    assert ["references" in json.loads(line) for line in lines] == [False, True]


def test_predictions_are_readable_utf8(run: RunDir) -> None:
    run.write_predictions("baseline", [prediction("a", "naïve")])
    assert '"prediction": "naïve"' in run.predictions_file("baseline").read_text(encoding="utf-8")


def test_scores_keep_every_digit(run: RunDir) -> None:
    scores = {"bleu": Score(1 / 3, 7, "nrefs:1", 3, (0.1, 1 / 7)), "perplexity": Score(1e-300, 7, "base", 7, None)}
    run.write_predictions("baseline", [])
    run.write_table(run.row_statistics_file("baseline"), pa.table({"id": []}))
    run.write_scores("baseline", scores)
    run.complete("baseline", {})
    assert run.read_scores("baseline") == scores


def test_json_that_is_missing_is_named(run: RunDir) -> None:
    with pytest.raises(RunDirError, match=r"lengths\.json: missing"):
        run.read_json(run.lengths_file)


def test_the_history_grows_line_by_line_and_is_cut_back_for_a_resumed_training(run: RunDir) -> None:
    assert run.read_history() == []
    for step in (1, 2, 3, 4):
        run.append_history({"step": step, "loss": 1 / step})
    run.truncate_history(2)
    assert run.read_history() == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]
    run.append_history({"step": 3})
    assert [entry["step"] for entry in run.read_history()] == [1, 2, 3]


def test_an_adapter_takes_its_place_whole(run: RunDir) -> None:
    weights = run.adapter_dir / "weights"
    with replacing_folder(run.adapter_dir) as folder:
        (folder / "weights").write_text("first", encoding="utf-8")
        assert not run.adapter_dir.exists()
    with replacing_folder(run.adapter_dir) as folder:
        (folder / "weights").write_text("second", encoding="utf-8")
        assert weights.read_text(encoding="utf-8") == "first"
    assert weights.read_text(encoding="utf-8") == "second"
    assert contents(run.path) == [".lock", "adapter", "adapter/weights", "config.yaml"]
    assert run.adapter_dir.stat().st_mode & 0o777 == 0o755


def test_a_failed_save_leaves_the_adapter_that_was_there(run: RunDir) -> None:
    with replacing_folder(run.adapter_dir) as folder:
        (folder / "weights").write_text("first", encoding="utf-8")
    before = contents(run.path)
    with pytest.raises(IsADirectoryError), replacing_folder(run.adapter_dir) as folder:
        folder.write_bytes(b"a folder takes no bytes")
    assert contents(run.path) == before


def test_text_is_utf8_with_plain_line_ends_and_leaves_no_temporary_file(run: RunDir) -> None:
    path = run.path / "a" / "note.txt"
    for text in ("first", "né\r\n\n"):
        run.write_text(path, text)
        assert path.read_bytes() == text.encode("utf-8")
    assert contents(run.path / "a") == ["note.txt"]


def test_who_reads_while_a_file_is_replaced_reads_the_old_one_whole(run: RunDir) -> None:
    path = run.path / "note.txt"
    run.write_text(path, "old")
    with path.open(encoding="utf-8") as reader:
        run.write_text(path, "new and longer")
        assert reader.read() == "old"
    assert path.read_text(encoding="utf-8") == "new and longer"


def test_a_write_that_fails_keeps_the_old_file(run: RunDir) -> None:
    path = run.path / "note.txt"
    run.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        run.write_text(path, "half a pair: \ud800")
    with pytest.raises(TypeError):
        run.write_json(path, {"not": {"for", "json"}})
    assert path.read_text(encoding="utf-8") == "old"
    assert contents(run.path) == [".lock", "config.yaml", "note.txt"]


def test_a_split_that_cannot_be_written_leaves_no_half(run: RunDir) -> None:
    with pytest.raises(UnicodeEncodeError):
        run.write_split(Split((pair("\ud800"),), (), ()))
    assert not run.split_file("train").exists()
    assert not run.is_complete("data")


@pytest.mark.parametrize("key", ["loss", "grad_norm", "learning_rate", "tokens"])
def test_an_edited_history_is_named(run: RunDir, key: str) -> None:
    run.append_history({"step": 1, key: "abc"})
    with pytest.raises(RunDirError, match=rf"history\.jsonl: damaged, {key}: .* in line 1"):
        run.read_history()


def test_how_many_rows_are_held_in_memory() -> None:
    assert fewer_rows(10_000_000, 1 << 31) is None
    assert fewer_rows(20_000_000, 1 << 20) == 5_000_000  # too many, however short they are
    assert fewer_rows(1000, 1 << 33) == 125  # a quarter would just fit
