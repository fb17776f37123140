"""Files of rows: empty, cut off, in another encoding, packed a thousand times over, of other types."""

from __future__ import annotations

import gzip

from command_line import Medtune
from hostile import inputs
from hostile.cases import Refused, parametrize, refused, require_refused
from hostile.inputs import HEADER

AUDIT = "data audit hostile.csv"
WHOLE = HEADER + b"causes,What causes gout ?,Uric acid builds up in the blood.\n"

ENCODING = "save it as UTF-8, or name its encoding, such as --set data.table.encoding=latin-1"
STRAY = [
    f"{('causes', 'symptoms')[n % 2]},Question {n} ?,{chr(34) * (n == 4)}Answer {n}.{chr(34) * (n == 8)}"
    for n in range(24)
]


def _audit(name: str) -> str:
    return f"data audit {name}"


EMPTY = [
    refused("an empty CSV file", inputs.file("hostile.csv", ""), AUDIT,
            "hostile.csv: not a readable CSV file (it holds no header); check its header and quotes"),
    refused("a CSV file with a header alone", inputs.csv_rows(), AUDIT,
            "hostile.csv: no rows with an answer (0 without); there is nothing to train on"),
    refused("an empty JSONL file", inputs.file("hostile.jsonl", ""), _audit("hostile.jsonl"),
            "hostile.jsonl: no rows with an answer (0 without); there is nothing to train on"),
    refused("an empty gzip file", inputs.file("hostile.csv.gz", ""), _audit("hostile.csv.gz"),
            "hostile.csv.gz: not a readable CSV file (it holds no header); check its header and quotes"),
    refused("an empty Parquet file", inputs.file("hostile.parquet", ""), _audit("hostile.parquet"),
            "hostile.parquet: not a readable Parquet file (Parquet file size is 0 bytes); fetch or write it again"),
    refused("rows of white space alone", inputs.csv_rows(" , ,\t ", "\t,\t,  "), AUDIT,
            "hostile.csv: no rows with an answer (2 without); there is nothing to train on"),
    refused("rows of zero-width characters alone",
            inputs.csv_rows(*[f"x,\u200b{n},\u200b\u200b\ufeff" for n in range(3)]), AUDIT,
            "hostile.csv: cleaning left none of its 3 rows (dropped short: 3); check its columns, or keep short "
            "answers with --set data.min_answer_words=1"),
]  # fmt: skip

TRUNCATED = [
    refused("a gzip file without its end", inputs.file("hostile.csv.gz", gzip.compress(WHOLE)[:-5]),
            _audit("hostile.csv.gz"), "hostile.csv.gz: not a whole gzip file (Compressed file ended before the "
            "end-of-stream marker was reached); fetch or compress it again"),
    refused("a Parquet file without its end",
            inputs.cut("hostile.parquet", 20, first=inputs.parquet(Question=["q"], Answer=["a"])),
            _audit("hostile.parquet"), "hostile.parquet: not a readable Parquet file (Parquet magic bytes not found in "
            "footer. Either the file is corrupted or this is not a parquet file.); fetch or write it again"),
    refused("JSONL cut off inside a row", inputs.file("hostile.jsonl", '{"Question": "q", "Answer": "a"}\n{"Quest'),
            _audit("hostile.jsonl"), "hostile.jsonl: line 2 is not JSON (Unterminated string starting at); "
            "one object a line is needed"),
    refused("a CSV file cut off inside quotes", inputs.csv_rows('t,q,"never closed'), AUDIT,
            "hostile.csv: a quote in line 2 never closes; close or remove the quote in line 2, or if quotes mean "
            "nothing there, --set data.table.quotes=literal"),
    refused("a stray quote that swallows rows", inputs.csv_rows(*STRAY), AUDIT,
            "hostile.csv: a quote in line 6 closes in line 10, and the lines between look like rows, so that 5 lines "
            "become one row; close or remove the quote in line 6, or if quotes mean nothing there, --set "
            "data.table.quotes=literal"),
]  # fmt: skip

ENCODED = [
    refused("a byte that neither UTF-8 nor cp1252 has", inputs.csv_rows(b"t,caf\x81,a"), AUDIT,
            f"hostile.csv: not UTF-8 text (invalid start byte at byte 27); {ENCODING}"),
    refused("UTF-16 without its last byte", inputs.file("hostile.csv", WHOLE.decode().encode("utf-16")[:-1]), AUDIT,
            "hostile.csv: not utf-16 text (truncated data at byte 164); save it as UTF-8, or name its encoding in "
            "--set data.table.encoding=…"),
    refused("bytes of no encoding in JSONL", inputs.file("hostile.jsonl", b"\xfe\xed\xfa\x9d"),
            _audit("hostile.jsonl"), f"hostile.jsonl: not UTF-8 text (invalid start byte at byte 0); {ENCODING}"),
    refused("NULs alone", inputs.file("hostile.csv", b"\0" * 1000), AUDIT,
            "hostile.csv: no rows with an answer (0 without); there is nothing to train on"),
    refused("Parquet text that is not UTF-8", inputs.parquet_not_utf8, _audit("hostile.parquet"),
            "hostile.parquet: not a readable Parquet file ('utf-8' codec can't decode byte 0xff in position 0: invalid "
            "start byte); fetch or write it again"),
    refused("gzip in gzip", inputs.file("hostile.csv.gz", gzip.compress(gzip.compress(WHOLE))),
            _audit("hostile.csv.gz"),
            f"hostile.csv.gz: not UTF-8 text (invalid start byte at byte 1); {ENCODING}"),
]  # fmt: skip

BOMBS = [
    refused("2 GB of line breaks in 2 MB of gzip, as CSV", inputs.bomb("hostile.csv.gz"), _audit("hostile.csv.gz"),
            "hostile.csv.gz: unpacks to more than 100 times its size, which no text does; if it is sound, unpack it "
            "and give that file"),
    refused("2 GB of NULs in 2 MB of gzip, as JSONL", inputs.bomb("hostile.jsonl.gz", content=b"\0"),
            _audit("hostile.jsonl.gz"), "hostile.jsonl.gz: unpacks to more than 100 times its size, which no text "
            "does; if it is sound, unpack it and give that file"),
    refused("2 GB of equal rows in 400 KB of Parquet", inputs.parquet_bomb, _audit("hostile.parquet"),
            "hostile.parquet: not a readable Parquet file (more than 1,073,741,824 bytes); fetch or write it again"),
    refused("a file of 3 GB", inputs.huge("hostile.csv"), AUDIT,
            "hostile.csv: larger than 1,073,741,824 bytes; split it, or leave out what is not needed"),
    refused("a gzip bomb as predictions", inputs.bomb("hostile.jsonl.gz"), "score --predictions hostile.jsonl.gz",
            "hostile.jsonl.gz: unpacks to more than 100 times its size, which no text does; if it is sound, unpack it "
            "and give that file"),
    refused("JSON nested 100,000 deep", inputs.file("hostile.jsonl", "[" * 100_000), _audit("hostile.jsonl"),
            "hostile.jsonl: line 1 is not JSON (a number too long, or nested too deeply); one object a line is needed"),
    refused("a number of 5,000 digits", inputs.file("hostile.jsonl", '{"Answer": ' + "1" * 5000 + "}"),
            _audit("hostile.jsonl"), "hostile.jsonl: line 1 is not JSON (a number too long, or nested too deeply); one "
            "object a line is needed"),
    refused("a table of 3,000 columns", inputs.file("hostile.csv", ",".join(f"c{n}" for n in range(3_000)) + "\n1,2"),
            AUDIT, "hostile.csv: no column 'Question'; it has c0, c1, …, c19 …; name yours with --set "
            "data.columns.question=NAME",
            "hostile.csv: no column 'Answer'; it has c0, c1, …, c19 …; name yours with --set "
            "data.columns.answer=NAME"),
]  # fmt: skip

TYPED = [
    refused("Parquet with bytes for text", inputs.parquet(Question=[b"q"], Answer=[b"a"]), _audit("hostile.parquet"),
            "hostile.parquet: row 0: question is a bytes, not text; convert that column to text"),
    refused("Parquet with numbers for text", inputs.parquet(Question=[1], Answer=[2]), _audit("hostile.parquet"),
            "hostile.parquet: row 0: question is a int, not text; convert that column to text"),
    refused("Parquet with lists of numbers for text", inputs.parquet(Question=["q"], Answer=[[1]]),
            _audit("hostile.parquet"),
            "hostile.parquet: row 0: answer is a list with a int, not text; convert that column to text"),
    refused("Parquet with structures for a label", inputs.parquet(Question=["q"], Answer=["a"], focus=[{"a": 1}]),
            _audit("hostile.parquet"),
            "hostile.parquet: row 0: focus is a dict, not text; convert that column to text"),
    refused("Parquet with two columns of one name", inputs.parquet_twice, _audit("hostile.parquet"),
            "hostile.parquet: not a readable Parquet file (two columns are called Question); fetch or write it again"),
    refused("JSONL with an object for an answer", inputs.json_rows({"Question": "q", "Answer": {"a": 1}}),
            _audit("hostile.jsonl"),
            "hostile.jsonl: row 0: answer is a dict, not text; convert that column to text"),
    refused("JSONL of lists", inputs.json_rows([1]), _audit("hostile.jsonl"),
            "hostile.jsonl: line 1 is a list; one object a line is needed"),
    refused("a row with more cells than the header", inputs.csv_rows("t,q,a,surplus"), AUDIT,
            "hostile.csv: its first row has more cells than its header; check its header and quotes"),
    refused("a kind of file that is not read (.xls)", inputs.file("hostile.xls", "q\ta\n"), _audit("hostile.xls"),
            "hostile.xls: unknown kind of file; medtune reads .csv, .csv.gz, .tsv, .tsv.gz, .jsonl, .jsonl.gz, .json, "
            ".json.gz, .parquet, .xlsx, folders of these, of MedQuAD XML and of save_to_disk"),
    refused("rows with more cells than the header", inputs.csv_rows("t,q,a", "t,q,a,b", "t,q,a,b"), AUDIT,
            "hostile.csv: 2 of its 3 rows have more cells than its header, such as line 3; check its header and "
            "quotes, or its separator with --set data.table.separator=…"),
    refused("a workbook that is none", inputs.file("hostile.xlsx", "Question,Answer\n"), _audit("hostile.xlsx"),
            "hostile.xlsx: not a readable Excel workbook (File is not a zip file); open it in Excel or LibreOffice and "
            "save it as .xlsx, or as CSV"),
    refused("a JSON file of a number", inputs.file("hostile.json", "7"), _audit("hostile.json"),
            "hostile.json: holds a int; an array of objects, or an object that holds one, is needed"),
    refused("a pickle called .parquet", inputs.pickled("hostile.parquet"), _audit("hostile.parquet"),
            "hostile.parquet: not a readable Parquet file (Parquet magic bytes not found in footer. Either the file is "
            "corrupted or this is not a parquet file.); fetch or write it again"),
]  # fmt: skip

PREDICTIONS = [
    refused("predictions of which some lack ids",
            inputs.json_rows({"id": 1, "reference": "r", "prediction": "p"}, {"reference": "r", "prediction": "p"}),
            "score --predictions hostile.jsonl", "hostile.jsonl: row 2: no id; it has reference, prediction; name the "
            "columns id, reference, prediction and, where rows share a topic, group, or give --id-column …"),
    refused("two predictions of one id", inputs.json_rows(*[{"id": 1, "reference": "r", "prediction": "p"}] * 2),
            "score --predictions hostile.jsonl", "hostile.jsonl: row 2: id '1' is in two rows; ids must be unique"),
    refused("a prediction that is a list", inputs.json_rows({"id": 1, "reference": "r", "prediction": ["p"]}),
            "score --predictions hostile.jsonl",
            "hostile.jsonl: row 1: prediction is ['p'], and must be text, which may be empty; fix the row or drop it"),
    refused("tokens that are no count", inputs.json_rows({"id": 1, "reference": "r", "prediction": "p",
            "new_tokens": -1}), "score --predictions hostile.jsonl",
            "hostile.jsonl: row 1: new_tokens is -1, not a count of tokens; fix it or leave it out"),
    refused("a prediction of 10 MB", inputs.json_rows({"id": 1, "reference": "r", "prediction": "p " * 5_000_000}),
            "score --predictions hostile.jsonl", "hostile.jsonl: row 1: prediction has 10,000,000 characters, more "
            "than 1,000,000; shorten it, or leave the row out"),
    refused("a field of 10 MB of the wrong type", inputs.json_rows({"id": 1, "reference": "r", "prediction": "p",
            "group": ["g" * 10_000_000]}), "score --predictions hostile.jsonl",
            "hostile.jsonl: row 1: group is ['gggg…, neither text nor a whole number; fix it or leave it out"),
]  # fmt: skip

CASES: dict[str, list[Refused]] = {
    "Files that are empty": EMPTY,
    "Files that are cut off": TRUNCATED,
    "Files in other encodings": ENCODED,
    "Files that would fill the memory": BOMBS,
    "Files of other types": TYPED,
    "Files of predictions": PREDICTIONS,
}


@parametrize([case for cases in CASES.values() for case in cases])
def test_refused(case: Refused, medtune: Medtune, workspace) -> None:
    require_refused(case, medtune, workspace)


REPLACED = [
    refused("the source of a finished run is emptied", inputs.file("rows.csv", ""),
            "run recipe.yaml --run-dir run --resume",
            "rows.csv: not a readable CSV file (it holds no header); check its header and quotes"),
    refused("the source of a finished run becomes no text", inputs.file("rows.csv", b"caf\x81"),
            "run recipe.yaml --run-dir run --resume",
            f"rows.csv: not UTF-8 text (invalid start byte at byte 3); {ENCODING}"),
    refused("a finished run is given to another recipe", inputs.file("other.yaml", "extends: recipe.yaml\nseed: 7\n"),
            "run other.yaml --run-dir run --resume",
            "run: made with another seed: 0 → 7; choose another --run-dir"),
    refused("a finished run is given again, without --resume", inputs.both(), "run recipe.yaml --run-dir run",
            "run: not empty; add --resume to continue that run, or choose another --run-dir"),
]  # fmt: skip


@parametrize(REPLACED)
def test_a_finished_run_survives(case: Refused, medtune: Medtune, workspace) -> None:
    require_refused(case, medtune, workspace)


def test_a_bomb_takes_little_memory(medtune: Medtune, workspace) -> None:
    """The bound is kept while unpacking, not looked at afterwards."""
    import tracemalloc

    inputs.bomb("hostile.jsonl.gz")(workspace)
    tracemalloc.start()
    result = medtune("data", "audit", "hostile.jsonl.gz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.status == 2
    assert peak < 1 << 28
