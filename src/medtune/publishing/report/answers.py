"""Both models' answers beside the references, compressed for the page within a bound."""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medtune.publishing.report.reading_run import ReportData
from medtune.runtime.terminal import harmless, one_line

# What the answers may take of a page that is to stay under 5 MB, before base64 adds a third.
MAX_PACKED_BYTES = 3_200_000
_MOST_ROWS = 20_000
# Characters of one text, the first that fits: what MedQuAD's longest answer takes is 29,046.
_TEXT_LIMITS = (30_000, 8_000, 4_000, 2_000, 1_000)
_LABEL_CHARACTERS = 120
# More than this, and on a phone a text begins with its first lines alone.
_LONG_CHARACTERS, _LONG_LINES = 240, 6
_EXAMPLES = ("the largest gain", "the median", "the largest loss")


@dataclass(frozen=True, slots=True)
class PackedAnswers:
    """Rows as JSON, gzipped, in base64; `rows` of `total` rows, with at most `characters` of each text."""

    packed: str
    rows: int
    total: int
    characters: int
    cut_texts: int


@dataclass(frozen=True, slots=True)
class Example:
    """One row that is shown without a script, and why it was picked."""

    why: str
    row: Mapping[str, Any]

    def is_long(self, name: str) -> bool:
        """Whether that text of the row takes more lines than are shown at first."""
        text: str = self.row[name]
        return len(text) > _LONG_CHARACTERS or text.count("\n") > _LONG_LINES


def pack_answers(data: ReportData) -> PackedAnswers:
    """All rows, or if they are too many a regular sample of them, with long texts cut."""
    total = len(data.predictions["baseline"])
    places = _every(range(total), _MOST_ROWS)
    while True:
        for characters in _TEXT_LIMITS:
            rows = [answer_row(data, place, characters) for place in places]
            text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
            packed = gzip.compress(text.encode("utf-8"), compresslevel=9, mtime=0)
            if len(packed) <= MAX_PACKED_BYTES:
                cut = sum(bool(row["cut"]) for row in rows)
                return PackedAnswers(base64.b64encode(packed).decode("ascii"), len(places), total, characters, cut)
        places = _every(places, len(places) // 2)


def answer_row(data: ReportData, place: int, characters: int) -> dict[str, Any]:
    """One row for the page: texts with control characters spelled out, tokens, and the scores of either answer."""
    before, after = data.predictions["baseline"][place], data.predictions["tuned"][place]
    texts = {
        "question": before.question,
        "reference": before.reference,
        "baseline": before.prediction,
        "tuned": after.prediction,
    }
    row: dict[str, Any] = {"id": _label(before.id), "type": _label(before.qtype), "n": place + 1}
    row |= {name: harmless(text[:characters]) for name, text in texts.items()}
    # The characters that each text has, where not all of them are here.
    row["cut"] = {name: len(text) for name, text in texts.items() if len(text) > characters}
    row["tokens"] = [before.reference_tokens, before.new_tokens, after.new_tokens]
    row["capped"] = [answer.finish_reason == "length" for answer in (before, after)]
    for metric, values in data.row_scores["baseline"].items():
        if metric in data.row_scores["tuned"]:
            row[metric] = [round(values[place], 4), round(data.row_scores["tuned"][metric][place], 4)]
    return row


def question_types(data: ReportData) -> list[str]:
    """The types that the rows have, sorted."""
    return sorted({_label(row.qtype) for row in data.predictions["baseline"] if row.qtype})


def examples(data: ReportData, characters: int = 1_500) -> list[Example]:
    """Rows with the largest gain, the median and the largest loss of ROUGE-L; the first rows where that is unknown."""
    before, after = (data.row_scores[model].get("rougeL") for model in ("baseline", "tuned"))
    total = len(data.predictions["baseline"])
    if before is None or after is None:
        return [Example("the first row", answer_row(data, 0, characters))] if total else []
    order = sorted(range(total), key=lambda place: (before[place] - after[place], place))
    picked = [order[0], order[total // 2], order[-1]] if total > 2 else order
    return [
        Example(f"{why} of ROUGE-L F1", answer_row(data, place, characters))
        for why, place in zip(_EXAMPLES, picked, strict=False)
    ]


def _label(text: str) -> str:
    """A name in one line of a bounded length; whoever wrote the source chose it."""
    return one_line(text[:_LABEL_CHARACTERS])


def _every(places: Sequence[int], most: int) -> Sequence[int]:
    """At most `most` of `places`, at regular distances."""
    if len(places) <= most:
        return places
    return [places[number * len(places) // most] for number in range(max(1, most))]
