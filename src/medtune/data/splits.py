"""Groups, splits and samples: pure, deterministic, and independent of the order of the rows."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

from medtune.data.near_duplicates import SimilarAnswers, find_similar_answers
from medtune.data.specific_turns import asked_turns, specific_earlier_answers
from medtune.data.turns import earlier_exchanges
from medtune.errors import DataError
from medtune.records import QAPair, Split, SplitName

PARTS: tuple[SplitName, ...] = ("train", "validation", "test")
# What a source may call its parts, in any case.
PART_NAMES: Mapping[str, SplitName] = {
    "train": "train", "validation": "validation", "val": "validation", "valid": "validation", "dev": "validation",
    "test": "test",
}  # fmt: skip

# An answer that serves this many topics is boilerplate ("This condition is inherited in an autosomal recessive
# pattern …"). Among MedQuAD's clusters of equal and near-duplicate answers those that carry a topic's own content, the
# types of one syndrome say, span six topics at most; the others span 7, 7, 11, 15, 24, 43, 68, 343 and 454.
TEMPLATE_TOPICS = 7
# Where rows name no topic, their questions are weaker evidence: a data set may ask one thing in twenty ways.
TEMPLATE_QUESTIONS = 50
# Effective groups from which on a test's intervals hold whatever the scores are.
ENOUGH_GROUPS = 30
# On MedQuAD the types settle within twenty rounds; more would only polish.
_ROUNDS = 20


def assign_groups(pairs: Sequence[QAPair], similar: SimilarAnswers | None = None) -> list[QAPair]:
    """Give each row its group, named after the group's first row in id order, and mark the templates.

    A group is all rows that share a question (normalised), a document, a focus or an answer (equal or near-duplicate),
    however indirectly; a conversation shares by each of its turns that is specific. Answers whose wording serves many
    topics are templates: their rows are marked and are joined by question, document and focus alone. `similar` is the
    result of `find_similar_answers` for the rows' answers, if the caller has it already.
    """
    if similar is None:
        answers, earlier = [pair.answer for pair in pairs], [specific_earlier_answers(pair) for pair in pairs]
        similar = find_similar_answers(answers, earlier=earlier)
    asked = zip(pairs, asked_turns(pairs), strict=True)
    keys = [[*(("question", turn) for turn in turns.normalized), *_topics(pair)] for pair, turns in asked]
    clusters = _answer_clusters(similar)
    templates = _template_clusters(pairs, _components(keys), clusters)
    own = [[("answers", cluster) for cluster in row if cluster not in templates] for row in clusters]
    labels = _components([[*row, *more] for row, more in zip(keys, own, strict=True)])
    first: dict[int, str] = {}
    for pair, label in sorted(zip(pairs, labels, strict=True), key=lambda item: item[0].id):
        first.setdefault(label, pair.id)
    return [
        replace(pair, group=first[label], template=row[0] in templates)
        for pair, label, row in zip(pairs, labels, clusters, strict=True)
    ]


def _answer_clusters(similar: SimilarAnswers) -> list[list[int]]:
    """The clusters of equal and near-duplicate answers that each row's answers are in, that of its last one first."""
    answers = similar.all_of()
    labels = iter(_components([[answer] for row in answers for answer in row], similar.edges))
    return [[next(labels) for _ in row] for row in answers]


def focus_key(focus: str) -> str:
    """A focus in lower case with single blanks: equal for two spellings of one focus."""
    return " ".join(focus.casefold().split())


def _components(keys: Sequence[Sequence[Hashable]], links: Iterable[tuple[Hashable, Hashable]] = ()) -> list[int]:
    """A label for each row; rows that share a key, or whose keys are linked, however indirectly, share a label."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes: dict[Hashable, int] = {}
    edges = [(row, len(keys) + nodes.setdefault(key, len(nodes))) for row, own in enumerate(keys) for key in own]
    edges += [(len(keys) + nodes[first], len(keys) + nodes[second]) for first, second in links]
    size = len(keys) + len(nodes)
    ends = [first for first, _ in edges], [second for _, second in edges]
    _, labels = connected_components(coo_array(([1] * len(edges), ends), shape=(size, size)), directed=False)
    return [int(label) for label in labels[: len(keys)]]


def _topics(pair: QAPair) -> Iterable[tuple[str, str]]:
    if pair.document_id:
        yield "document", pair.document_id
    if pair.focus:
        yield "focus", focus_key(pair.focus)


def _template_clusters(pairs: Sequence[QAPair], base: Sequence[int], clusters: Sequence[Sequence[int]]) -> set[int]:
    """Clusters of answers that span so many of the groups made without answers that they must not join them.

    A conversation has a topic, whether a column names it or not.
    """
    with_topic = {
        group for pair, group in zip(pairs, base, strict=True) if any(_topics(pair)) or earlier_exchanges(pair)
    }
    spans: dict[int, set[int]] = defaultdict(set)
    for group, row in zip(base, clusters, strict=True):
        for cluster in row:
            spans[cluster].add(group)
    return {
        cluster
        for cluster, groups in spans.items()
        if len(groups & with_topic) >= TEMPLATE_TOPICS or len(groups) >= TEMPLATE_QUESTIONS
    }


def split_grouped(pairs: Sequence[QAPair], *, validation: float, test: float, seed: int) -> Split:
    """Whole groups into test, validation and train, near these shares of the rows and of every question type.

    Groups come in seeded order. A part takes a group if at least half of it still fits and if that brings the part's
    question types nearer to their quotas; what no part takes is for training. Where a few large groups hold nearly all
    rows, the quotas shrink to what the others can fill. Groups that would dominate the test are for training too, as
    far as there are others to choose from: intervals are as wide as its effective number of groups is small.
    """
    groups: dict[str, list[QAPair]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda pair: pair.id):
        groups[pair.group].append(pair)
    order = sorted(groups, key=lambda name: seeded_order(seed, name))
    types = Counter(pair.qtype for pair in sorted(pairs, key=lambda pair: pair.id))
    types_of = {name: Counter(pair.qtype for pair in groups[name]) for name in order}
    chosen = deal_groups(types_of, types, validation=validation, test=test)
    return Split(**{part: tuple(row for name in chosen[part] for row in groups[name]) for part in PARTS})


def deal_groups(
    groups: Mapping[str, Counter[str]], types: Counter[str], *, validation: float, test: float
) -> dict[SplitName, list[str]]:
    """Names of the groups of each part, as `split_grouped` deals them.

    `groups` are in seeded order, each with its rows by question type; shares are those of all rows, whose `types` these
    are. What no part takes is in `train`.
    """
    sizes = {name: rows.total() for name, rows in groups.items()}
    wanted = (validation + test) * types.total()
    fitting = sum(size for size in sizes.values() if size / 2 <= max(validation, test) * types.total())
    scale = min(1.0, fitting / wanted) if wanted else 1.0
    order = list(groups)
    chosen: dict[SplitName, list[str]] = {}
    shares: tuple[tuple[SplitName, float], ...] = (("test", test), ("validation", validation))
    for part, share in shares:
        quotas = {qtype: share * scale * count for qtype, count in types.items()}
        largest = _largest_for_test(list(sizes.values()), sum(quotas.values())) if part == "test" else math.inf
        chosen[part] = _take([name for name in order if sizes[name] <= largest], groups, quotas)
        taken = set(chosen[part])
        order = [name for name in order if name not in taken]
    chosen["train"] = order
    return chosen


def _largest_for_test(sizes: Sequence[int], room: float) -> float:
    """The largest group, in rows, that a test set of `room` rows may take.

    If none has more than a thirtieth of the rows, they count as at least `ENOUGH_GROUPS` groups of equal size. Where
    groups that small could not fill it twice, the limit doubles until they can.
    """
    largest = max(1.0, room / ENOUGH_GROUPS)
    while largest < max(sizes, default=0) and sum(size for size in sizes if size <= largest) < 2 * room:
        largest *= 2
    return largest


def _take(order: Sequence[str], types: Mapping[str, Counter[str]], quotas: Mapping[str, float]) -> list[str]:
    """Names of groups, each with its rows by question type in `types`, that together come near `quotas`.

    Groups are taken and given back, each time lowering Σ (rows - quota)² / quota over the types, the chi-square
    distance, until nothing helps any more.
    """
    room = sum(quotas.values())
    have = Counter(dict.fromkeys(quotas, 0))
    chosen: dict[str, None] = {}

    def move(name: str, sign: int) -> None:
        have.update({qtype: sign * rows for qtype, rows in types[name].items()})
        if sign > 0:
            chosen[name] = None
        else:
            del chosen[name]

    def gain(name: str, sign: int) -> float:
        return -sum((2 * sign * n * (have[t] - quotas[t]) + n * n) / quotas[t] for t, n in types[name].items())

    def fits(name: str) -> bool:
        return name not in chosen and have.total() + types[name].total() / 2 <= room

    for _ in range(_ROUNDS):
        before = dict(have)
        for name in order:
            if fits(name) and gain(name, 1) >= 0:
                move(name, 1)
        for name in reversed(list(chosen)):
            if gain(name, -1) > 0:
                move(name, -1)
        if have == before:
            break
    # Few rows of many types: quotas below half a row each would leave the part empty.
    for name in order:
        if fits(name):
            move(name, 1)
    return list(chosen)


def split_random(pairs: Sequence[QAPair], *, validation: float, test: float, seed: int) -> Split:
    """Single rows in seeded order, whatever they share. For comparison only: it leaks."""
    ordered = sample_rows(pairs, None, seed)
    first = round(test * len(pairs))
    second = first + round(validation * len(pairs))
    return Split(tuple(ordered[second:]), tuple(ordered[first:second]), tuple(ordered[:first]))


def split_by_column(pairs: Sequence[QAPair], *, validation: float, seed: int) -> Split:
    """The parts that the source itself puts its rows in.

    If it names no validation rows, whole groups that hold this share of its training rows become them. Raises
    DataError, naming them, for values that are none of `PART_NAMES`.
    """
    require_known_parts(Counter(pair.split for pair in pairs if named_part(pair) is None))
    parts = {part: tuple(pair for pair in sample_rows(pairs, None, seed) if named_part(pair) == part) for part in PARTS}
    if not parts["validation"]:
        divided = split_grouped(parts["train"], validation=validation, test=0.0, seed=seed)
        return replace(divided, test=parts["test"])
    return Split(**parts)


def require_known_parts(unknown: Counter[str]) -> None:
    """Raises DataError if there are rows with `unknown` values in the place of a part's name."""
    if unknown:
        shown = ", ".join(f"{value!r} ({rows} rows)" for value, rows in unknown.most_common(5))
        fix = "that column may say train, validation (or val, valid, dev) and test"
        raise DataError("data.columns.split", f"{shown}: no part of a split", fix)


def named_part(pair: QAPair) -> SplitName | None:
    """The part that the source puts the row in, if it names one that is known."""
    return PART_NAMES.get(pair.split.strip().lower())


def sample_rows(pairs: Sequence[QAPair], limit: int | None, seed: int) -> list[QAPair]:
    """A seeded random sample of at most `limit` rows; a smaller sample is a prefix of a larger one."""
    ordered = sorted(pairs, key=lambda pair: seeded_order(seed, pair.id))
    return ordered if limit is None else ordered[:limit]


def seeded_order(seed: int, key: str) -> bytes:
    """A sort key that shuffles by `seed` and does not depend on what else is sorted."""
    return hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogatepass")).digest()
