"""Training rows for every arm: encoded once by medtune's renderer, in the order in which medtune trains on them.

    medquad_rows.py encode SOURCE MODEL OUT.jsonl [--rows N] [--max-length 1024]
    medquad_rows.py join SOURCE MODEL OUT.csv [--rows N] [--tokens 8192]

SOURCE is a table of questions and answers (CSV, gzipped or not, JSONL, Parquet), or a run directory whose data stage
is done. MODEL is a folder with a tokenizer and a chat template. `encode` writes a JSON line a row: `input_ids`, and
`labels` that are -100 on the prompt. `join` strings neighbouring rows together until they hold TOKENS, for rows that
fill a long context.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reporting import note

if TYPE_CHECKING:
    from medtune.config.schema import Config
    from medtune.records import EncodedRow, QAPair

Row = dict[str, list[int]]
# Leaves at least 12,500 of MedQuAD's cleaned rows for training, and enough of the others to measure on.
SPLIT = {"test": 0.1, "validation": 0.05}


def main() -> None:
    """Write rows as the arguments say."""
    arguments = _parser().parse_args()
    if arguments.command == "encode":
        rows = encode(arguments.source, arguments.model, max_length=arguments.max_length)[: arguments.rows]
        write_rows(arguments.out, rows)
        tokens = sum(len(row["input_ids"]) for row in rows)
        note(f"{len(rows)} rows of {tokens / len(rows):.0f} tokens on average")
    else:
        count = write_joined(arguments.source, arguments.model, arguments.out, arguments.tokens, arguments.rows)
        note(f"{count} rows of at least {arguments.tokens} tokens")


def benchmark_config(source: str, model: str, **training: Any) -> Config:
    """The configuration that every arm's rows come from."""
    from medtune.config.schema import parse_config

    values = {"model": {"base": model}, "data": {"source": source, "split": SPLIT}, "training": training}
    return parse_config(values, origin="benchmark")


def encode(source: Path, model: Path, *, max_length: int) -> list[Row]:
    """Training rows of `source`, in the order of medtune's first epoch."""
    from medtune.data.preparation import prepare_data
    from medtune.data.training_rows import encode_for_training
    from medtune.model.loaded import load_renderer
    from medtune.run_dir.directory import RunDir

    if (source / "config.yaml").is_file():
        run = RunDir.open(source)
        config, pairs = run.config, run.read_split("train")
    else:
        config = benchmark_config(str(source), str(model))
        pairs = list(prepare_data(config).split.train)
    encoded = encode_for_training(load_renderer(config, model), pairs, max_length=max_length, overlong="cut")
    return in_training_order(encoded.rows, config.seed)


def in_training_order(rows: Sequence[EncodedRow], seed: int, count: int | None = None) -> list[Row]:
    """The first `count` rows that medtune draws, epoch after epoch, or one epoch: others read them as they stand."""
    from medtune.training.batching import StepSampler

    epochs = -(-(count or len(rows)) // len(rows))
    order = [index for epoch in StepSampler(len(rows), len(rows), epochs, seed) for index in epoch]
    return [{"input_ids": rows[i].input_ids, "labels": rows[i].labels} for i in order[:count]]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """One JSON line a row."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)


def read_rows(path: Path, count: int | None = None) -> list[Row]:
    """The first `count` rows, or all of them. Exits if there are fewer."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in islice(file, count)]
    if count is not None and len(rows) < count:
        raise SystemExit(f"{path}: {len(rows)} rows, and {count} are needed; encode more, or take fewer steps")
    return rows


def write_joined(source: Path, model: Path, out: Path, tokens: int, limit: int | None = None) -> int:
    """Write a table whose rows fill `tokens` tokens each; returns how many there are. What is left over is dropped."""
    from medtune.data.cleaning import clean_pairs
    from medtune.data.sources import read_source
    from medtune.model.loaded import load_renderer

    config = benchmark_config(str(source), str(model))
    renderer = load_renderer(config, model)
    pairs = clean_pairs(read_source(str(source), config.data.columns).pairs).pairs
    written = 0
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["qtype", "Question", "Answer"])
        for question, answer in islice(join_pairs(pairs, renderer, tokens), limit):
            writer.writerow(["joined", question, answer])
            written += 1
    return written


def join_pairs(pairs: Sequence[QAPair], renderer: Any, tokens: int) -> Iterator[tuple[str, str]]:
    """Question of the first row, and everything up to the row that makes it `tokens` long with its prompt."""
    question, held = "", 0
    parts: list[str] = []
    for pair in pairs:
        if not parts:
            question, held = pair.question, len(renderer.prompt_ids(pair.question))
        else:
            parts.append(pair.question)
            held += renderer.count_tokens([pair.question])[0]
        parts.append(pair.answer)
        held += renderer.count_tokens([pair.answer])[0]
        if held > tokens:
            yield question, "\n".join(parts)
            parts = []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("encode", "join"):
        command = commands.add_parser(name)
        command.add_argument("source", type=Path)
        command.add_argument("model", type=Path)
        command.add_argument("out", type=Path)
        command.add_argument("--rows", type=int, help="only the first so many")
        if name == "encode":
            command.add_argument("--max-length", type=int, default=1024, help="longest row in tokens")
        else:
            command.add_argument("--tokens", type=int, default=8192, help="length of a row")
    return parser


if __name__ == "__main__":
    main()
