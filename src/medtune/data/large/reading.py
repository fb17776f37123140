"""One piece of a source, read and cleaned: its rows as Parquet, and what the whole needs to know of them in arrays."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medtune.data import cleaning
from medtune.data.focus import fill_focus
from medtune.data.large.arrays import append
from medtune.data.large.hashes import WordNumbers, answers_by_words, hash_text, hashes_of, id_bytes
from medtune.data.large.source_files import BATCH_ROWS, SourcePiece, damaged, decode_lines, is_parquet
from medtune.data.near_duplicates import shingle_sets
from medtune.data.pairs import RowIds, read_values, row_id, without_answer
from medtune.data.row_markup import find_markup
from medtune.data.splits import PARTS, focus_key, named_part
from medtune.data.tables.json_files import read_lines
from medtune.records import QAPair
from medtune.storage.row_tables import row_schema

# Focus texts read from questions: used where no row of the whole source gives one.
FOCUS_READ = "focus_read"
SCHEMA = row_schema(("references",)).append(pa.field(FOCUS_READ, pa.string()))


@dataclass(frozen=True, slots=True)
class Job:
    """A piece to read, `number`th of its source, and the settings that all pieces share.

    `names` are the columns by field, and `present` all that are known; `shingles` says whether answers are compared.
    """

    number: int
    piece: SourcePiece
    folder: str
    names: Mapping[str, str | None]
    present: tuple[str, ...]
    markup: Any
    html: Any
    min_words: int
    shingles: bool

    def file(self, kind: str) -> Path:
        """Where the piece's array or table of this kind is."""
        return Path(self.folder, f"{self.number}.{kind}")


@dataclass(slots=True)
class Done:
    """What a piece held: counts by rule, question types and sources by code, columns that were not known, and a digest.

    `answered` are its rows with an answer, `kept` those that cleaning kept. `id_bytes` is the length of its longest id,
    and `other_parts` are values of the split column that name no part.
    """

    number: int
    answered: int = 0
    kept: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    markup: Counter[str] = field(default_factory=Counter)
    types: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    other_parts: Counter[str] = field(default_factory=Counter)
    has_focus: bool = False
    has_references: bool = False
    id_bytes: int = 1
    text_bytes: int = 0
    digest: str = ""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Done":
        """What another process found."""
        counters = {name: Counter(values[name]) for name in ("counts", "markup", "other_parts")}
        return cls(**{**values, **counters})


@dataclass(frozen=True, slots=True)
class _Places(RowIds):
    """Gives rows their places for ids, and keeps their own, before copies are numbered, and whether each was given."""

    found: list[tuple[str, bool]] = field(default_factory=list)

    def add(self, given: str, question: str, answer: str, origin: str) -> str:
        """The place of one more row, as text."""
        place = str(len(self.found))
        self.found.append((given or row_id(question, answer, (), Counter()), bool(given)))
        return place


def read_piece(job: Job, advance: Any = lambda rows: None) -> Done:
    """Read, clean and write a piece. `advance` is called with the rows done. Raises DataError."""
    done, digest, known = Done(job.number), hashlib.sha256(), set(job.present)
    # Half the disk that Parquet's default takes; reading is as fast.
    written = {"use_dictionary": ["qtype", "source", "split"], "compression": "zstd", "compression_level": 1}
    with pq.ParquetWriter(job.file("rows"), SCHEMA, **written) as writer:
        first = job.piece.first
        for records in _batches(job):
            new = {name: None for record in records for name in record if name not in known}
            known |= new.keys()
            done.columns += new
            _read_batch(job, records, first, done, digest, writer)
            first += len(records)
            advance(len(records))
    done.digest = digest.hexdigest()
    return done


def _batches(job: Job) -> Iterator[list[dict[str, Any]]]:
    piece, path = job.piece, Path(job.piece.path)
    if not is_parquet(path):
        with path.open("rb") as file:
            file.seek(piece.start)
            text = decode_lines(path, file.read(piece.stop - piece.start))
        records = list(read_lines(piece.path, text, piece.first + 1))
        for start in range(0, len(records), BATCH_ROWS):
            yield records[start : start + BATCH_ROWS]
        return
    columns = [name for name in job.names.values() if name is not None]
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[piece.start], columns=columns):
                yield batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise damaged(path, error) from None


def _read_batch(job: Job, records: list[dict[str, Any]], first: int, done: Done, digest: Any, writer: Any) -> None:
    origin, ids, base = job.piece.path, _Places(), done.answered
    pairs: list[QAPair] = []
    aside: list[dict[str, Any]] = []
    for values in read_values(records, job.names, origin, first):
        if not values["answer"].strip():
            done.counts["unanswered"] += 1
            row = without_answer(values)
            aside.append({"id": row.id, "rule": "unanswered", "raw_question": row.raw_question, "raw_answer": ""})
            continue
        given = cleaning.clean_text(values["id"])
        values["id"] = ids.add(given, values["question"], values["answer"], origin)
        pairs.append(QAPair(**values))
        read = [given, *(str(values[name]) for name in sorted(values) if name != "id")]
        digest.update("\0".join([*read, "\n"]).encode("utf-8", "surrogatepass"))
    found = find_markup(pairs, job.markup, job.html)
    cleaned = cleaning.clean_pairs(found.pairs, job.min_words)
    done.markup.update(found.counts)
    done.counts.update(cleaned.counts)
    for rule, pair in cleaned.dropped:
        text = {"raw_question": pair.raw_question, "raw_answer": pair.raw_answer}
        aside.append({"id": ids.found[int(pair.id)][0], "rule": rule, **text, "place": base + int(pair.id)})
    done.answered += len(pairs)
    append(job.file("ids"), np.fromiter((hash_text(id) for id, _ in ids.found), np.uint64, len(pairs)))
    append(job.file("given"), np.fromiter((given for _, given in ids.found), np.uint8, len(pairs)))
    _write_dropped(job, aside)
    _write_kept(job, cleaned.pairs, [ids.found[int(pair.id)][0] for pair in cleaned.pairs], base, done, writer)


def _write_dropped(job: Job, rows: list[dict[str, Any]]) -> None:
    with job.file("dropped").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_kept(job: Job, pairs: list[QAPair], ids: list[str], base: int, done: Done, writer: Any) -> None:
    """Write cleaned rows, whose own ids are their places in the batch that begins at `base`."""
    has_focus = any(pair.focus for pair in pairs)
    read = [""] * len(pairs) if has_focus else [pair.focus for pair in fill_focus(pairs)[0]]
    done.has_focus |= has_focus
    done.has_references |= any(pair.references for pair in pairs)
    places = np.fromiter((base + int(pair.id) for pair in pairs), np.uint64, len(pairs))
    answers = answers_by_words(pairs)
    arrays = {**hashes_of(pairs, answers), "place": places}
    arrays[FOCUS_READ] = np.fromiter((hash_text(focus_key(focus)) for focus in read), np.uint64, len(pairs))
    arrays["part"] = np.fromiter((_part_code(pair, done) for pair in pairs), np.uint8, len(pairs))
    arrays["type"] = np.array([done.types.setdefault(pair.qtype, len(done.types)) for pair in pairs], np.int32)
    arrays["source"] = np.array([done.sources.setdefault(pair.source, len(done.sources)) for pair in pairs], np.int32)
    for kind, values in arrays.items():
        append(job.file(kind), values)
    if job.shingles and pairs:
        sets = shingle_sets(answers, _WORDS.__getitem__)
        append(job.file("shingles"), sets.indices.astype(np.int64))
        append(job.file("shingle_counts"), np.diff(sets.indptr).astype(np.int32))
    encoded = [id_bytes(id) for id in ids]
    done.id_bytes = max([done.id_bytes, *map(len, encoded)])
    with job.file("names").open("ab") as file:
        file.writelines(id + b"\n" for id in encoded)
    done.kept += len(pairs)
    done.text_bytes += sum(len(pair.question) + len(pair.answer) for pair in pairs)
    columns = {name: [getattr(pair, name) for pair in pairs] for name in SCHEMA.names if name not in (FOCUS_READ, "id")}
    writer.write_table(pa.table({**columns, "id": ids, FOCUS_READ: read}, schema=SCHEMA))


def _part_code(pair: QAPair, done: Done) -> int:
    name = named_part(pair)
    if name is None:
        if len(done.other_parts) < _MOST_NAMES or pair.split in done.other_parts:
            done.other_parts[pair.split] += 1
        return len(PARTS)
    return PARTS.index(name)


# Values that are kept for a message.
_MOST_NAMES = 1000
_WORDS = WordNumbers()


def as_json(done: Done) -> dict[str, Any]:
    """What a piece held, for another process."""
    # Not asdict, which makes a Counter of pairs out of a Counter.
    return {part.name: getattr(done, part.name) for part in fields(done)}
