"""Groups of all rows, as `splits.assign_groups` makes them, from hashes on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medtune.data.large import arrays
from medtune.data.large.components import Components
from medtune.data.large.gathering import Gathered
from medtune.data.large.reading import FOCUS_READ
from medtune.data.large.similar import Searched, join_similar
from medtune.data.splits import TEMPLATE_QUESTIONS, TEMPLATE_TOPICS
from medtune.runtime.progress import Advance


@dataclass(frozen=True, slots=True)
class Groups:
    """The group of each row, named by a row; its cluster of equal and similar answers; and which are templates.

    `template` is 1 at the first row of a cluster whose wording serves many topics. `first` is, at the first row of each
    group, the row with the least id, after which the group is named.
    """

    groups: Components
    clusters: Components
    template: Any
    first: Any
    searched: Searched


def focus_kind(found: Gathered) -> str:
    """Which array has the focus: the source's own, or what was read from questions where no row has one."""
    return "focus" if found.has_focus else FOCUS_READ


def group_rows(found: Gathered, limit: int, advance: Advance) -> Groups:
    """Join rows that share a question, a document, a focus or an answer that is no template.

    Near-duplicates are looked for among at most `limit` different answers. `advance` is called with the rows done.
    """
    topics = (found.file("document"), found.file(focus_kind(found)))
    groups = Components(found.file("groups"), found.rows)
    for path in (found.file("question"), *topics):
        _join_equal(path, groups)
        advance(found.rows)
    clusters = Components(found.file("clusters"), found.rows)
    first = _join_equal(found.file("answer"), clusters, found.file("repeated"))
    searched = join_similar(found, clusters, first, limit)
    clusters.settle()
    groups.settle()
    advance(found.rows)
    template = _templates(found, groups, clusters, topics)
    for start in range(0, found.rows, arrays.BLOCK):
        rows = np.arange(start, min(found.rows, start + arrays.BLOCK))
        cluster = clusters.of(rows)
        own = template[cluster] == 0
        groups.join(rows[own], cluster[own])
    groups.settle()
    advance(found.rows)
    return Groups(groups, clusters, template, _name(found, groups), searched)


def _join_equal(path: Path, sets: Components, repeated: Path | None = None) -> Any:
    """Join rows with equal keys, and mark those of which an earlier row has the key."""
    marks = None if repeated is None else arrays.mapped(repeated, np.uint8, sets.rows, fill=0)
    for rows, first in arrays.equal_runs(path):
        others = rows != first
        sets.join(rows[others], first[others])
        if marks is not None:
            marks[rows[others]] = 1
    return marks


def _templates(found: Gathered, groups: Components, clusters: Components, topics: tuple[Path, ...]) -> Any:
    """1 at the first row of each cluster that spans too many of the groups made without answers."""
    with_topic = arrays.mapped(found.file("with_topic"), np.uint8, found.rows, fill=0)
    for path in topics:
        for start, values in arrays.blocks(path, np.uint64):
            with_topic[groups.of(np.flatnonzero(values) + start)] = 1
    template = arrays.mapped(found.file("template"), np.uint8, found.rows, fill=0)
    sizes = clusters.sizes(found.file("cluster_sizes"))
    # 0 stands for none, and a cluster of few rows cannot span many groups.
    pairs = found.file("spanning"), found.file("spanned")
    for path in pairs:
        path.unlink(missing_ok=True)
    for start in range(0, found.rows, arrays.BLOCK):
        rows = np.arange(start, min(found.rows, start + arrays.BLOCK))
        cluster = clusters.of(rows)
        many = sizes[cluster] >= min(TEMPLATE_TOPICS, TEMPLATE_QUESTIONS)
        arrays.append(pairs[0], (cluster[many] + 1).astype(np.uint64))
        arrays.append(pairs[1], (groups.of(rows[many]) + 1).astype(np.uint64))
    for cluster, group in arrays.distinct_pairs(*pairs):
        names, place = np.unique(cluster.astype(np.int64) - 1, return_inverse=True)
        spans = np.bincount(place, minlength=len(names))
        with_topics = np.bincount(place, weights=with_topic[group.astype(np.int64) - 1], minlength=len(names))
        template[names[(with_topics >= TEMPLATE_TOPICS) | (spans >= TEMPLATE_QUESTIONS)]] = 1
    return template


def _name(found: Gathered, groups: Components) -> Any:
    """For each group the row with its least id, at the group's first row.

    Ids are compared eight bytes at a time, each time among the rows that are level so far.
    """
    first = arrays.mapped(found.file("first"), np.int32, found.rows, fill=-1)
    level = arrays.mapped(found.file("level"), np.uint8, found.rows, fill=1)
    least = arrays.mapped(found.file("least"), np.uint64, found.rows, fill=0)
    words, names = found.id_bytes // 8, f"S{found.id_bytes}"
    for word in range(words):
        for start in range(0, found.rows, arrays.BLOCK):
            least[start : start + arrays.BLOCK] = np.uint64(2**64 - 1)
        # First the least of each group, then those that are above it drop out.
        for drop_out in (False, True):
            for start, ids in arrays.blocks(found.file("id"), names):
                values = ids.view(">u8").reshape(len(ids), words)[:, word].astype(np.uint64)
                rows = np.flatnonzero(level[start : start + len(ids)]) + start
                group, values = groups.of(rows), values[rows - start]
                if drop_out:
                    level[rows[values > least[group]]] = 0
                else:
                    np.minimum.at(least, group, values)
    for start in range(0, found.rows, arrays.BLOCK):
        rows = np.flatnonzero(level[start : start + arrays.BLOCK]) + start
        first[groups.of(rows)] = rows
    return first
