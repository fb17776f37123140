"""Reading and splitting of data larger than memory: seconds, peak memory and bytes on disk for each number of rows.

`python benchmarks/large_data.py sizes=1000000,2000000 folder=/tmp/large form=parquet` prints a JSON line a size and
deletes what it wrote. Rows are synthetic, of MedQuAD's mean length, some of them equal, nearly equal or templates.
`arrays=20000000` takes random hashes in place of rows: repeats, groups and the split alone, where memory may grow.
`python benchmarks/large_data.py draw=docs/large-data.svg < lines.jsonl` draws the lines that were printed.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from reporting import note, parse_options, print_measurement

DEFAULTS: dict[str, Any] = {
    "sizes": "1000000", "folder": "/tmp/medtune-large", "form": "parquet", "near": 2_000_000, "workers": 0,
    "measure": "", "draw": "", "train_limit": 100_000, "arrays": 0,
}  # fmt: skip
# MedQuAD's answers have 201 words in the mean; half of them fewer than 139.
MEAN_WORDS = 201
VOCABULARY, TYPES, CHUNK, MILLION = 50_000, 16, 20_000, 1_000_000
TEMPLATE = "this condition is inherited in an autosomal recessive pattern which means both copies of the gene have"


def synthetic_rows(rows: int, seed: int = 0) -> Iterator[dict[str, list[str]]]:
    """Columns of rows, a chunk at a time: 3 % repeat an answer, 7 % nearly do, 2 % are one wording for many topics."""
    generator = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    lengths = generator.integers(2, 12, VOCABULARY)
    vocabulary = np.array(["".join(generator.choice(letters, length)) for length in lengths])
    shares = 1 / np.arange(1, VOCABULARY + 1)
    bounds = np.cumsum(shares / shares.sum())
    for start in range(0, rows, CHUNK):
        size = min(CHUNK, rows - start)
        counts = np.minimum(4000, generator.lognormal(np.log(139), 0.85, size).astype(int) + 6)
        drawn = vocabulary[np.searchsorted(bounds, generator.random(int(counts.sum())))].tolist()
        ends = np.cumsum(counts)
        answers = [drawn[end - count : end] for end, count in zip(ends.tolist(), counts.tolist(), strict=True)]
        kinds = generator.random(size)
        for place in np.flatnonzero(kinds < 0.12).tolist():
            earlier = answers[int(generator.integers(0, place + 1))]
            if kinds[place] < 0.03:
                answers[place] = earlier
            elif kinds[place] < 0.10:
                answers[place] = [*earlier[: len(earlier) // 2], "changed", *earlier[len(earlier) // 2 + 1 :]]
            else:
                answers[place] = [*TEMPLATE.split(), *earlier[:3]]
        topics = generator.integers(0, max(1, rows // 4), size)
        asked = generator.integers(0, TYPES, size)
        names = [f"{vocabulary[t % VOCABULARY]} {vocabulary[t // VOCABULARY]} syndrome" for t in topics.tolist()]
        yield {
            "qtype": [f"type {kind}" for kind in asked.tolist()],
            "Question": [
                f"What are the {vocabulary[kind]} of {name} ?" for kind, name in zip(asked, names, strict=True)
            ],
            "Answer": [f"{' '.join(words)}." for words in answers],
            "focus": names,
        }


def write_jsonl(path: Path, rows: int) -> None:
    """Write `rows` rows, an object a line."""
    with path.open("w", encoding="utf-8") as file:
        for columns in synthetic_rows(rows):
            for values in zip(*columns.values(), strict=True):
                file.write(json.dumps(dict(zip(columns, values, strict=True))) + "\n")


def write_parquet(folder: Path, first: Path, rows: int) -> None:
    """Write files of a million rows: the first is `first`, and the others hold its rows with a letter before each word.

    Other words make other rows at a tenth of the time.
    """
    import pyarrow as pa

    if not first.exists():
        _write_tables(first, (pa.table(columns) for columns in synthetic_rows(MILLION)))
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(_write_part, folder, first, rows), range(-(-rows // MILLION))))


def _write_part(folder: Path, first: Path, rows: int, number: int) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    left, path = min(MILLION, rows - number * MILLION), folder / f"part-{number:03}.parquet"
    if number == 0 and left == MILLION:
        os.link(first, path)
        return

    def changed(table: pa.Table) -> pa.Table:
        letter = chr(ord("a") + number)
        texts = {name: pc.replace_substring(table[name], " ", f" {letter}") for name in table.schema.names[1:]}
        return pa.table({"qtype": table["qtype"], **texts})

    with pq.ParquetFile(first) as file:
        groups = (file.read_row_group(place) for place in range(-(-left // CHUNK)))
        _write_tables(path, (changed(group)[: left - place * CHUNK] for place, group in enumerate(groups)))


def _write_tables(path: Path, tables: Iterator[Any]) -> None:
    import pyarrow.parquet as pq

    first = next(tables)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def measure(source: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Read, split and audit a source in this process: seconds by piece of work, memory, bytes on disk."""
    from medtune.config.schema import parse_config
    from medtune.data.large.auditing import audit_streamed
    from medtune.data.large.preparation import prepare_streamed
    from medtune.data.large.training_part import TrainingPart
    from medtune.data.large.writing import Tables, write_rows
    from medtune.runtime.progress import Progress, listening

    data = {
        "source": str(source),
        "stream": True,
        "near_duplicate_limit": options["near"],
        "train_limit": options["train_limit"],
    }
    files = sorted(source.iterdir())
    config = parse_config({"model": {"base": "none"}, "data": data}, origin="benchmark")
    seconds: dict[str, float] = {}
    last = time.perf_counter()

    def listen(progress: Progress) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[progress.work.split(" (")[0]] = seconds.get(progress.work.split(" (")[0], 0.0) + now - last
        last = now

    began = time.perf_counter()
    with listening(listen), prepare_streamed(config, files, source.parent, options["workers"] or None) as streamed:
        tables = Tables(streamed.found, streamed.groups)
        prepared = time.perf_counter() - began
        held = sum(path.stat().st_size for path in streamed.found.folder.iterdir())
        train = source.with_suffix(".train")
        write_rows(train, TrainingPart(streamed, tables, config, None).tables(), tables.schema, lambda rows: None)
        audit = audit_streamed(streamed, tables, config, None, streamed.report["rows"])
        train.unlink()
        whole = time.perf_counter() - began
        sampled = {name: round(spent, 1) for name, spent in seconds.items() if spent > 0.05}
        return {
            "rows": streamed.report["streamed"]["rows"],
            "kept": streamed.found.rows,
            "groups": audit.counts.groups,
            "split": dict(streamed.dealt.rows),
            "streamed": streamed.report["streamed"],
            "seconds": round(whole, 1),
            "seconds_to_split": round(prepared, 1),
            "seconds_by_work": sampled,
            "cpu_seconds": round(
                sum(_processor_seconds(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)), 1
            ),
            "source_bytes": sum(path.stat().st_size for path in files),
            "bytes_on_disk": held,
            "text_bytes": streamed.found.text_bytes,
        }


def measure_arrays(rows: int, folder: Path) -> dict[str, Any]:
    """Number ids, drop repeats, group and deal `rows` rows of which there are hashes alone."""
    from medtune.config.schema import parse_config
    from medtune.data.large.dealing import deal
    from medtune.data.large.gathering import Gathered, drop_repeats, number_ids
    from medtune.data.large.grouping import group_rows

    config = parse_config({"model": {"base": "none"}, "data": {"source": "hashes", "stream": True}}, origin="benchmark")
    found = Gathered(folder, rows=rows, answered=rows, has_focus=True, types=["a", "b", "c"], sources=[""], id_bytes=12)
    began = time.perf_counter()
    for start in range(0, rows, MILLION):
        _write_hashes(found, start, min(MILLION, rows - start), rows)
    made = time.perf_counter()
    number_ids(found, "hashes")
    drop_repeats(found)
    groups = group_rows(found, 0, lambda done, note="": None)
    dealt = deal(found, groups, config)
    return {
        "rows": rows,
        "kept": found.rows,
        "split": dict(dealt.rows),
        "seconds": round(time.perf_counter() - made, 1),
        "seconds_of_making": round(made - began, 1),
        "bytes_on_disk": sum(path.stat().st_size for path in folder.iterdir()),
    }


def _write_hashes(found: Any, start: int, size: int, rows: int) -> None:
    generator = np.random.default_rng(start)
    factor = np.uint64(0x9E3779B97F4A7C15)

    def drawn(values: int) -> Any:
        return (generator.integers(1, values, size, dtype=np.uint64) * factor) | np.uint64(1)

    def written(kind: str, values: Any) -> None:
        with found.file(kind).open("ab") as file:
            values.tofile(file)

    for kind, values in (("question", 3 * rows), ("answer", 20 * rows), ("focus", max(2, rows // 4)), ("ids", 2**47)):
        written(kind, drawn(values))
    for kind in ("question_exact", "answer_exact", "repeat"):
        written(kind, drawn(20 * rows))
    for kind in ("document", "focus_read"):
        written(kind, np.zeros(size, np.uint64))
    written("place", np.arange(start, start + size, dtype=np.uint64))
    written("type", generator.integers(0, 3, size, dtype=np.int32))
    written("source", np.zeros(size, np.int32))
    for kind in ("part", "given"):
        written(kind, np.zeros(size, np.uint8))
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)[generator.integers(0, 16, (size, 13), dtype=np.uint8)]
    digits[:, -1] = ord("\n")
    written("names", digits)
    for kind in ("dropped", "shingles", "shingle_counts"):
        found.file(kind).touch()


def _processor_seconds(who: int) -> float:
    spent = resource.getrusage(who)
    return spent.ru_utime + spent.ru_stime


def _peak(process: int) -> int:
    """The most memory that a process has had, of files that it mapped too."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def measured_apart(source: Path, arguments: list[str]) -> dict[str, Any]:
    """`measure` in a process of its own, with its peak and those of its workers."""
    child = subprocess.Popen(
        [sys.executable, __file__, *arguments, f"measure={source}"], stdout=subprocess.PIPE, text=True
    )
    peaks: dict[int, int] = {}
    anonymous = 0

    def watch() -> None:
        nonlocal anonymous
        while child.poll() is None:
            try:
                own = psutil.Process(child.pid)
                family = [own, *own.children(recursive=True)]
                anonymous = max(
                    anonymous, sum(member.memory_info().rss - member.memory_info().shared for member in family)
                )
            except psutil.Error:
                continue
            peaks.update({member.pid: max(peaks.get(member.pid, 0), _peak(member.pid)) for member in family})
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    printed, _ = child.communicate()
    watcher.join()
    if child.returncode:
        raise SystemExit(child.returncode)
    own = peaks.pop(child.pid, 0)
    return {**json.loads(printed), "worker_peak_bytes": max(peaks.values(), default=0), "workers": len(peaks),
            "parent_peak_bytes": own, "anonymous_peak_bytes": anonymous}  # fmt: skip


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw processor time and peak memory over rows, a line for each number of processes that read them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = sorted(lines, key=lambda line: line["rows"])
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")

    def curve(axes: Any, lines: list[dict[str, Any]], values: list[float], style: str, **looks: Any) -> None:
        axes.plot([line["rows"] / 1e6 for line in lines], values, style, **looks)

    for number, workers in enumerate(sorted({line["workers"] for line in lines})):
        some, color = [line for line in lines if line["workers"] == workers], f"C{number}"
        memory = [line["anonymous_peak_bytes"] / 2**30 for line in some]
        curve(left, some, memory, "o-", color=color, label=f"{workers} processes that read, and the main one")
        spent = [line["cpu_seconds"] / 60 for line in some]
        curve(right, some, spent, "o-", color=color, label=f"data stage, processor time, {workers} processes")
    text = [line["text_bytes"] / 2**30 for line in lines]
    curve(left, lines, text, ":", color="gray", label="the text itself")
    left.set(xlabel="million rows", ylabel="GiB", title="peak memory, without mapped files", xlim=0, ylim=0)
    left.legend(fontsize=8, frameon=False)
    compared = [line for line in lines if "Comparing answers" in line["seconds_by_work"]]
    works = ("Finding rare shingles", "Comparing answers")
    near = [sum(line["seconds_by_work"].get(work, 0) for work in works) / 60 for line in compared]
    curve(right, compared, near, "s--", color="C3", label="near-duplicates, on the clock")
    right.set(xlabel="million rows", ylabel="minutes", title="time", xlim=0, ylim=0)
    right.legend(fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})


def main() -> None:
    """Measure, or draw what was measured."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    options = parse_options(sys.argv[1:], DEFAULTS)
    if options["draw"]:
        draw([json.loads(line) for line in sys.stdin if line.strip()], Path(options["draw"]))
        return
    if options["measure"]:
        source = Path(options["measure"])
        print(json.dumps(measure_arrays(options["arrays"], source) if options["arrays"] else measure(source, options)))
        return
    if options["arrays"]:
        folder = Path(options["folder"], "arrays")
        folder.mkdir(parents=True)
        figures = measured_apart(folder, sys.argv[1:])
        print_measurement(benchmark="large_data", form="hashes", **figures)
        shutil.rmtree(folder)
        return
    folder = Path(options["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for size in map(int, options["sizes"].split(",")):
        source = folder / f"rows-{size}"
        source.mkdir(exist_ok=True)
        began = time.perf_counter()
        if options["form"] == "jsonl":
            write_jsonl(source / "rows.jsonl", size)
        else:
            write_parquet(source, folder / "million.parquet", size)
        note(f"{size:,} rows written in {time.perf_counter() - began:.0f} s")
        figures = measured_apart(source, sys.argv[1:])
        print_measurement(benchmark="large_data", form=options["form"], **figures)
        shutil.rmtree(source)


if __name__ == "__main__":
    main()
