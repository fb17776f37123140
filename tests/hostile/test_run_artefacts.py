"""Files of a finished run edited by hand: every reader says in one line which file, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from command_line import Medtune
from hostile import inputs
from hostile.cases import Refused, parametrize, refused, require_refused
from hostile.inputs import both, incomplete

COMPARE, RESUME, EXPORT = "compare run", "run recipe.yaml --run-dir run --resume", "human export run --n 2 --out new"
RESTORE = "restore it, or start another --run-dir"
DEEP, NOT_JSON = "[" * 100_000, "not JSON (a number too long, or nested too deeply)"


def _file(what: str, name: str, content: str | bytes, problem: str, command: str, *first: inputs.Maker) -> Refused:
    return refused(what, both(inputs.file(f"run/{name}", content), *first), command, f"run/{name}: {problem}")


def _edited(what: str, name: str, change: Callable[[Any], Any], problem: str, command: str = COMPARE) -> Refused:
    make = both(incomplete("compare"), inputs.edit_json(f"run/{name}", change))
    return refused(what, make, command, f"run/{name}: {problem}")


def _table(name: str, change: Callable[[Any], Any]) -> inputs.Maker:
    def make(workspace: Path) -> None:
        import pyarrow.parquet as pq

        pq.write_table(change(pq.read_table(workspace / "run" / name)), workspace / "run" / name)

    return make


def _overwritten(table: Any, value: Any) -> Any:
    import pyarrow as pa

    return pa.table({name: table[name] if name == "id" else [value] * len(table) for name in table.column_names})


CONFIG = [
    _file("a config.yaml with a tag", "config.yaml", "model: !!python/name:os.system x\n",
          "YAML tags are not allowed (line 1, column 8); write plain values", RESUME),
    _file("a config.yaml that is not UTF-8", "config.yaml", b"\xff",
          "not UTF-8 text (invalid start byte at byte 0); save it as UTF-8", RESUME),
    _file("an empty config.yaml", "config.yaml", "",
          "must be a mapping of sections such as model and data, got NoneType", RESUME),
    _file("a config.yaml out of range", "config.yaml",
          "model: {base: model}\ndata: {source: rows.csv}\nlora: {rank: 0}\n",
          "lora.rank: input should be greater than or equal to 1, got 0", RESUME),
    refused("a config.yaml of another run",
            lambda workspace: (workspace / "run/config.yaml").write_text(
                (workspace / "run/config.yaml").read_text().replace("rank: 16", "rank: 8")),
            RESUME, "run: made with another lora.rank: 8 → 16; choose another --run-dir"),
    refused("a config.yaml of 3 GB", inputs.huge("run/config.yaml"), RESUME,
            "run/config.yaml: larger than 1048576 bytes; a recipe is a short YAML file"),
    refused("a folder called config.yaml", both(inputs.remove("run/config.yaml"),
            lambda workspace: (workspace / "run/config.yaml").mkdir()), COMPARE,
            "run: not a medtune run (no config.yaml); make one with `medtune run RECIPE`"),
]  # fmt: skip

PROVENANCE = [
    _file("a provenance.json that is no JSON", "provenance.json", "{",
          f"damaged, not JSON (Expecting property name enclosed in double quotes); {RESTORE}", COMPARE),
    _file("a provenance.json that is a list", "provenance.json", "[]",
          f"damaged, input should be a valid dictionary; {RESTORE}", COMPARE),
    _file("a provenance.json that is nothing", "provenance.json", "null",
          f"damaged, input should be a valid dictionary; {RESTORE}", RESUME),
    _file("a provenance.json nested 100,000 deep", "provenance.json", DEEP, f"damaged, {NOT_JSON}; {RESTORE}", COMPARE),
    _file("a provenance.json that is not UTF-8", "provenance.json", b"\xff",
          f"damaged, not UTF-8 text, invalid start byte at byte 0; {RESTORE}", "ask run 'Why ?'"),
    _file("stages that are a list", "provenance.json", '{"stages": []}',
          f"damaged, stages: input should be a valid dictionary; {RESTORE}", COMPARE),
    _file("a stage that is nothing", "provenance.json", '{"stages": {"data": null}}',
          f"damaged, stages.data: input should be a valid dictionary; {RESTORE}", RESUME),
    _file("a model that is a list", "provenance.json", '{"model": []}',
          f"damaged, model: input should be a valid dictionary; {RESTORE}", "ask run 'Why ?'"),
    _file("a revision that is a number", "provenance.json", '{"model": {"revision": 7}}',
          f"damaged, model.revision: input should be a valid string; {RESTORE}", RESUME),
    refused("a batch size in words",
            both(incomplete("tuned", "compare"), inputs.edit_json("run/provenance.json",
                 lambda values: values["stages"]["baseline"].update(batch_size="many"))),
            "evaluate run --model tuned", "run/provenance.json: damaged, stages.baseline.batch_size: input should be a "
            f"valid integer, unable to parse string as an integer; {RESTORE}"),
    refused("no precision", both(incomplete("controls", "compare"), inputs.edit_json("run/provenance.json",
                 lambda values: values["stages"]["baseline"].pop("precision") and None)),
            "evaluate run --model controls",
            f"run/provenance.json: damaged, stages.baseline.precision: input should be a valid string; {RESTORE}"),
]  # fmt: skip

ROW = '{"id": "a", "question": "q", "reference": "r", "prediction": "p"}'
PREDICTIONS = [
    _file("predictions of junk", "tuned/predictions.jsonl", "junk\n",
          f"damaged, not JSON (Expecting value) in line 1; {RESTORE}", EXPORT),
    _file("predictions that are lists", "tuned/predictions.jsonl", "[1]\n",
          f"damaged, input should be a dictionary or an instance of Prediction in line 1; {RESTORE}", EXPORT),
    _file("predictions without their texts", "tuned/predictions.jsonl", f'{ROW}\n{{"id": "a"}}\n',
          f"damaged, question: field required in line 2; {RESTORE}", COMPARE, incomplete("compare")),
    _file("predictions of other types", "tuned/predictions.jsonl", ROW.replace('"p"', "7") + "\n",
          f"damaged, prediction: input should be a valid string in line 1; {RESTORE}", COMPARE, incomplete("compare")),
    _file("predictions that are not UTF-8", "tuned/predictions.jsonl", b"\xff\n",
          f"damaged, not UTF-8 text, invalid start byte at byte 0; {RESTORE}", EXPORT),
    refused("fewer predictions", inputs.file("run/tuned/predictions.jsonl", f"{ROW}\n"), EXPORT,
            "baseline has 8 predictions, tuned has 1; evaluate both on the same rows"),
]  # fmt: skip

AGAIN = "evaluate that model again"
SCORES = [
    _edited("scores that are a list", "tuned/scores.json", lambda _: [],
            f"damaged, input should be a valid dictionary; {RESTORE}"),
    _edited("a score in words", "tuned/scores.json", lambda values: values["bleu"].update(value="good"),
            f"damaged, bleu.value: input should be a valid number, unable to parse string as a number; {RESTORE}"),
    _edited("a score without its n", "tuned/scores.json", lambda values: values["bleu"].pop("n") and None,
            f"damaged, bleu.n: field required; {RESTORE}"),
    _edited("an interval of one end", "tuned/scores.json", lambda values: values["bleu"].update(ci95=[1]),
            f"damaged, bleu.ci95.1: field required; {RESTORE}"),
    refused("more rows than were measured",
            both(incomplete("compare"), inputs.edit_json("run/tuned/scores.json",
                 lambda values: values["bleu"].update(n=9))), COMPARE,
            f"run/tuned/row_statistics.parquet: does not fit the scores beside it (bleu); {AGAIN}"),
    refused("another way of measuring", both(incomplete("compare"), inputs.edit_json("run/tuned/scores.json",
            lambda values: values["bleu"].update(signature="tok:none"))), COMPARE,
            "bleu: measured in two ways, which never compare; baseline …, tuned model tok:none; evaluate both again "
            "with the same settings"),
    _file("row statistics of junk", "tuned/row_statistics.parquet", "junk",
          f"not readable (Parquet file size is 4 bytes…); {AGAIN}", COMPARE, incomplete("compare")),
    refused("row statistics in words", both(incomplete("compare"),
            _table("tuned/row_statistics.parquet", lambda table: _overwritten(table, "1"))), COMPARE,
            "run/tuned/row_statistics.parquet: bleu.… or a column beside it is not all numbers; " + AGAIN),
    refused("row statistics that are NaN", both(incomplete("compare"),
            _table("tuned/row_statistics.parquet", lambda table: _overwritten(table, float("nan")))), COMPARE,
            "run/tuned/row_statistics.parquet: bleu.… or a column beside it is not all numbers; " + AGAIN),
    refused("row statistics that are missing a column", both(incomplete("compare"),
            _table("tuned/row_statistics.parquet", lambda table: table.select(["id"]))), COMPARE,
            f"run/tuned/row_statistics.parquet: does not fit the scores beside it (bleu); {AGAIN}"),
]  # fmt: skip

REPEAT = "delete it and run `medtune compare run`"
BESIDE = "run/comparison.json: it or a file beside it is damaged, or from another version of medtune"
COMPARISON = [
    _file("a comparison that is no JSON", "comparison.json", "{",
          f"damaged, not JSON (Expecting property name enclosed in double quotes); {RESTORE}", COMPARE),
    _file("a comparison nested 100,000 deep", "comparison.json", DEEP, f"damaged, {NOT_JSON}; {RESTORE}", COMPARE),
    refused("a verdict of no kind",
            inputs.edit_json("run/comparison.json", lambda rows: rows[0].update(verdict="best")), COMPARE,
            f"{BESIDE} (rows.0.verdict: input should be 'better', 'worse', 'equivalent', 'cannot tell', "
            "'too few groups', 'descriptive' or 'undefined'); " + REPEAT),
    refused("a difference in words",
            inputs.edit_json("run/comparison.json", lambda rows: rows[0].update(difference="big")), COMPARE,
            f"{BESIDE} (rows.0.difference: input should be a valid number, unable to parse string as a number); "
            + REPEAT),
    refused("lengths that are a list", inputs.file("run/lengths.json", "[]"), COMPARE, f"{BESIDE}; {REPEAT}"),
    refused("controls that are numbers", inputs.file("run/controls.json", '{"cut_reference": 3}'), COMPARE,
            f"{BESIDE}; {REPEAT}"),
    refused("strata that are words", inputs.file("run/strata.json", '{"strata": "x", "leaking_rows": {}}'), COMPARE,
            f"{BESIDE} (strata: input should be a valid tuple); {REPEAT}"),
    _edited("an audit that is a list", "data/audit.json", lambda _: [],
            f"damaged, input should be a dictionary or an instance of _Leaking; {RESTORE}"),
    _edited("an audit without its leaks", "data/audit.json", lambda values: values.pop("leaking_test_rows") and None,
            f"damaged, leaking_test_rows: field required; {RESTORE}"),
]  # fmt: skip

REPORT_AGAIN = "report run"
REPORTS = [
    _file("a history in words", "training/history.jsonl", '{"step": "x"}\n', "damaged, step: input should be a valid "
          f"integer, unable to parse string as an integer in line 1; {RESTORE}", REPORT_AGAIN),
    _file("ratings without their reading", "human/scores.json", "{}",
          f"damaged, reading: field required; {RESTORE}", REPORT_AGAIN),
    _file("ratings nested 100,000 deep", "human/scores.json", DEEP, f"damaged, {NOT_JSON}; {RESTORE}", REPORT_AGAIN),
    refused("an audit without its counts",
            inputs.edit_json("run/data/audit.json", lambda values: values.pop("counts") and None), REPORT_AGAIN,
            f"run/data/audit.json: damaged, counts: field required; {RESTORE}"),
    refused("more scores than answers", inputs.file("run/tuned/predictions.jsonl", f"{ROW}\n"), REPORT_AGAIN,
            "baseline has 8 predictions, tuned has 1; evaluate both on the same rows"),
    refused("a run that is not compared", incomplete("compare"), REPORT_AGAIN,
            "run: the compare stage is not complete; run `medtune compare run` first"),
]  # fmt: skip

EVALUATE = "evaluate run --model tuned"
UNEVALUATED = incomplete("tuned", "compare")
SPLITS = [
    _file("test rows of junk", "data/test.parquet", "junk",
          f"damaged, Parquet file size is 4 bytes…; {RESTORE}", EVALUATE, UNEVALUATED),
    refused("test rows without their texts",
            both(UNEVALUATED, _table("data/test.parquet", lambda table: table.select(["id"]))), EVALUATE,
            f"run/data/test.parquet: damaged, 0.qtype: field required; {RESTORE}"),
    refused("test rows of numbers", both(UNEVALUATED, _table("data/test.parquet", lambda table: table.set_column(
            table.column_names.index("question"), "question", [list(range(len(table)))]))), EVALUATE,
            f"run/data/test.parquet: damaged, 0.question: input should be a valid string; {RESTORE}"),
    refused("no test rows", both(UNEVALUATED, _table("data/test.parquet", lambda table: table.slice(0, 0))), EVALUATE,
            f"run/data/test.parquet: damaged, no rows; {RESTORE}"),
]  # fmt: skip

KEY, SHEET = "run/human/key.json", "run/human/sheet.csv"
SCORE = f"human score {SHEET}"
RESTORE_KEY = "restore it from where it was written"


def _key(what: str, change: Callable[[Any], Any], problem: str) -> Refused:
    return refused(what, inputs.edit_json(KEY, change), SCORE,
                   f"{KEY}: not a key of `medtune human export` ({problem}); {RESTORE_KEY}")  # fmt: skip


def _sheet(what: str, content: str | inputs.Maker, *lines: str) -> Refused:
    return refused(what, inputs.file(SHEET, content) if isinstance(content, str) else content, SCORE, *lines)


def _filled(item: str, rater: str, **ratings: str) -> inputs.Maker:
    """The exported sheet's one row, filled in."""

    def make(workspace: Path) -> None:
        sheet = json.loads((workspace / KEY).read_text())["sheet"]
        columns = {"sheet": sheet, "item": item, "rater": rater, **ratings}
        inputs.file(SHEET, ",".join(columns) + "\n" + ",".join(columns.values()) + "\n")(workspace)

    return make


RATINGS = [
    _key("a key that is a list", lambda _: [], "Input should be an object"),
    _key("a key with a third side", lambda key: key["items"]["1"].update(tuned="c"),
         "items.1.tuned: Input should be 'a' or 'b'"),
    _key("a key with a seed in words", lambda key: key.update(seed="x"),
         "seed: Input should be a valid integer, unable to parse string as an integer"),
    refused("a key nested 100,000 deep", inputs.file(KEY, DEEP), SCORE, f"{KEY}: not a key of `medtune human export` "
            f"(Invalid JSON: recursion limit exceeded at line 1 column …); {RESTORE_KEY}"),
    refused("a key that is not UTF-8", inputs.file(KEY, b"\xff"), SCORE,
            f"{KEY}: not UTF-8 text, invalid start byte at byte 0; {RESTORE_KEY}"),
    refused("a key of 3 GB", inputs.huge(KEY), SCORE, f"{KEY}: larger than 67,108,864 bytes; {RESTORE_KEY}"),
    _sheet("an empty sheet", "",
           f"{SHEET}: empty; give a filled sheet or the page's export"),
    refused("a sheet that nobody filled in", inputs.both(), SCORE,
            f"{SHEET}: nothing is rated; fill in ratings from 1 to 5 first"),
    _sheet("a sheet without its columns", "a,b\n1,2\n",
           f"{SHEET}: no column sheet and no column item; give a filled sheet or the page's export"),
    _sheet("ratings off the scale", _filled("1", "Ann", accuracy_a="9"),
           f"{SHEET}: item 1: accuracy_a is '9'; must be 1 to 5, or empty"),
    _sheet("a rating that is a formula", _filled("1", "Ann", accuracy_a="=1+1"),
           f"{SHEET}: item 1: accuracy_a is '=1+1'; must be 1 to 5, or empty"),
    _sheet("an item that is not on the sheet", _filled("99", "Ann", accuracy_a="3"),
           f"{SHEET}: item '99' is not on the sheet, which has 1 to 4"),
    _sheet("an item with an escape sequence", _filled("\x1b[2J", "Ann", accuracy_a="3"),
           f"{SHEET}: item '\\x1b[2J' is not on the sheet, which has 1 to 4"),
    refused("a sheet of 3 GB", inputs.huge(SHEET), SCORE,
            f"{SHEET}: larger than 67,108,864 bytes; give a filled sheet or the page's export"),
]  # fmt: skip


def _checked(what: str, edit: inputs.Maker, line: str) -> Refused:
    """With the checksums in place."""

    def with_checksums(workspace: Path) -> None:
        (workspace / "whole.json").replace(workspace / "run/provenance.json")

    return refused(what, both(with_checksums, edit), EXPORT, line)


def _listed(change: Callable[[Any], Any]) -> inputs.Maker:
    """The checksums of the tuned stage changed."""

    def edit(provenance: Any) -> None:
        record = provenance["stages"]["tuned"]
        record["files"] = change(record["files"])

    return inputs.edit_json("run/provenance.json", edit)


def _other_letter(workspace: Path) -> None:
    file = workspace / "run" / ANSWERS
    text = file.read_text(encoding="utf-8")
    place = text.index('"prediction": "') + len('"prediction": "')
    file.write_text(f"{text[:place]}{'y' if text[place] == 'x' else 'x'}{text[place + 1 :]}", encoding="utf-8")


ANSWERS = "tuned/predictions.jsonl"
NOT_COMPLETE = f"run: the tuned stage is not complete; run `medtune evaluate run --model tuned` first ({ANSWERS} {{}})"
FILES = f"run/provenance.json: damaged, stages.tuned.files: {{}}; {RESTORE}"
CHECKED = [
    _checked("a letter of an answer", _other_letter, NOT_COMPLETE.format("is not as it was written")),
    _checked("fewer answers", inputs.file(f"run/{ANSWERS}", f"{ROW}\n"), NOT_COMPLETE.format("has 66 of … bytes")),
    _checked("no answers", inputs.remove(f"run/{ANSWERS}"), NOT_COMPLETE.format("is missing")),
    _checked("checksums that are a list", _listed(lambda _: [1]), FILES.format("input should be a valid dictionary")),
    _checked("a size in words", _listed(lambda files: {**files, ANSWERS: {"bytes": "x", "sha256": ""}}),
             FILES.format(f"{ANSWERS}.bytes: input should be a valid integer, unable to parse string as an integer")),
    _checked("a file outside of the run", _listed(lambda files: {**files, "../rows.csv": files[ANSWERS]}),
             FILES.format("../rows.csv is not in the run")),
]  # fmt: skip

CASES: dict[str, list[Refused]] = {
    "A run's files edited, its checksums left": CHECKED,
    "A run's configuration edited": CONFIG,
    "A run's provenance edited": PROVENANCE,
    "A run's predictions edited": PREDICTIONS,
    "A run's scores edited": SCORES,
    "A run's comparison edited": COMPARISON,
    "What a run's report is made of, edited": REPORTS,
    "A run's rows edited": SPLITS,
    "Keys and sheets of ratings edited": RATINGS,
}


@parametrize([case for cases in CASES.values() for case in cases])
def test_refused(case: Refused, medtune: Medtune, workspace) -> None:
    require_refused(case, medtune, workspace)
