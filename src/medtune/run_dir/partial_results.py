"""Results kept as they come, so that a process that is stopped or killed loses the batch in hand and not a stage.

A file of JSON lines that is only added to. The first line says what the results are made of, and by what plan. Each
further line holds the results of one batch, or the batches to go after memory ran out. What ends without a line's end
was being written when the process ended.
"""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

from medtune.errors import RunDirError
from medtune.records import Answer, AnswerLoss
from medtune.runtime.distributed import exchange, from_main
from medtune.runtime.launch import is_main, own_share, rank, world_size
from medtune.runtime.progress import say
from medtune.storage.disk_errors import writing
from medtune.storage.reading import DamagedError, check_type, parse_json
from medtune.storage.writing import replacing_file


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """The token ids of one generated answer, its end token included where it has one."""

    ids: tuple[int, ...]


Result = TypeVar("Result", Answer, AnswerLoss, AnswerTokens)
# A line is in the operating system's hands at once, where the end of this process cannot harm it; for the end of the
# machine it is brought to the disk, which may take long, this often at most.
SECONDS_PER_FLUSH = 5.0


class BatchWork(Generic[Result]):
    """Batches of rows to compute in order, independent of each other, and the results of rows that are done.

    Which rows share a batch decides the last bits of their numbers, so it is planned once. `planned` are the batches
    since memory last ran out, `to_do` those of them that are to come. With the `cost` of a batch the processes
    of a launch share them out, and each has `to_do` its own.
    """

    def __init__(
        self,
        batches: Sequence[Sequence[int]],
        result: type[Result],
        *,
        entries: Iterable[Mapping[str, Any]] = (),
        keep: Callable[[dict[str, Any]], None] = lambda entry: None,
        cost: Callable[[Sequence[int]], float] | None = None,
    ) -> None:
        self._check: Callable[[list[dict[str, Any]]], list[Result]] = partial(check_type, list[result])  # type: ignore[valid-type]
        self._names: list[str] = [one.name for one in fields(result)]
        self.planned: list[list[int]] = [list(rows) for rows in batches]
        self.done: dict[int, Result] = {}
        self.times_out_of_memory: int = 0
        self._keep: Callable[[dict[str, Any]], None] = keep
        for entry in entries:
            if "batches" in entry:
                self.planned = check_type(list[list[int]], entry["batches"])
                self.times_out_of_memory += 1
            else:
                rows = check_type(list[int], entry.get("rows"))
                values = check_type(list[list[Any]], entry.get("results"))
                named = [dict(zip(self._names, row, strict=True)) for row in values]
                self.done |= zip(rows, self._check(named), strict=True)
        rest = [[row for row in rows if row not in self.done] for rows in self.planned]
        left: list[list[int]] = [rows for rows in rest if rows]
        # Every row is done or to be done, once.
        if sorted([*self.done, *chain.from_iterable(left)]) != sorted(chain.from_iterable(batches)):
            raise DamagedError("its batches do not hold every row once")
        self.to_do = deque(left if cost is None else [left[i] for i in own_share([cost(rows) for rows in left])])
        self._earlier = frozenset(self.done)

    def finish(self, rows: Sequence[int], results: Sequence[Result]) -> None:
        """Take and keep the results of one batch."""
        self.done |= zip(rows, results, strict=True)
        self._keep({"rows": list(rows), "results": [astuple(result) for result in results]})

    def replan(self, batches: Sequence[Sequence[int]]) -> None:
        """After memory ran out: continue with these batches, which hold all rows that are not done."""
        self.planned = [list(rows) for rows in batches]
        self.to_do = deque(self.planned)
        self.times_out_of_memory += 1
        self._keep({"batches": self.planned})

    @property
    def rows(self) -> int:
        """Rows that are done, and that this process has to do."""
        return len(self.done) + sum(map(len, self.to_do))

    def gather(self) -> None:
        """Get what the other processes have done."""
        own = [[row, astuple(result)] for row, result in self.done.items() if row not in self._earlier]
        told: list[Any] = exchange([own, self.times_out_of_memory])
        for results, _ in told:
            named = [dict(zip(self._names, values, strict=True)) for _, values in results]
            self.done |= zip((row for row, _ in results), self._check(named), strict=True)
        self.times_out_of_memory = sum(times for _, times in told)

    def in_order(self) -> list[Result]:
        """The results, row by row, once all are there."""
        return [self.done[row] for row in range(len(self.done))]


class PartialResults:
    """The results of one stage so far. `origin` is what they are made of, by the names that users know.

    The first process keeps its own in `file`, and every other in one beside it. Each is read by one of the processes,
    whichever wrote it: a run may go on with more or fewer than before, and where they share no files.
    """

    def __init__(self, file: Path, origin: Mapping[str, Any]) -> None:
        self.file = file
        self.own = file if is_main() else file.with_name(f"{file.stem}.{rank()}{file.suffix}")
        self.origin = dict(origin)
        self._entries: list[dict[str, Any]] = []
        self._flushed = -SECONDS_PER_FLUSH

    def plan(self, origin: Mapping[str, Any]) -> Any:
        """The plan of results that were made of the same things, `origin` among them; None if there are none.

        Results of other things are thrown away, and the user told what differs.
        """
        # As JSON gives it back: lists for tuples.
        self.origin = json.loads(json.dumps({**self.origin, **origin}))
        plan = from_main(lambda: self._read(self.file, tell=True))
        if plan is None:
            return None
        entries = []
        for file in self._files_to_read():
            found, _ = _whole_lines(file)
            if found and not self._differing(found[0]) and found[0].get("plan") == plan:
                entries.append(found[1:])
        told = [one for several in exchange(entries) for one in several]
        self._entries = list(chain.from_iterable(told))
        if world_size() > 1 or len(told) > 1:
            # Each process may have made other batches of its rows when its memory ran out.
            self._entries = [entry for entry in self._entries if "batches" not in entry]
        if not is_main() and self._read(self.own, tell=False) != plan:
            self._start(plan)
        return plan

    def _read(self, file: Path, *, tell: bool) -> Any:
        """The plan of a file of this process, which can be added to then; None if it is of other things."""
        entries, size = _whole_lines(file)
        if not entries:
            return None
        if differing := self._differing(entries[0]):
            if tell:
                what = " and ".join(differing)
                say(f"{file}: begun with another {what}, thrown away; all rows are computed again")
            return None
        os.truncate(file, size)
        return entries[0].get("plan")

    def _differing(self, entry: Mapping[str, Any]) -> list[str]:
        """What a file is of that begins with `entry`, and that these results are not made of."""
        kept = entry.get("origin")
        kept = kept if isinstance(kept, dict) else {}
        return [name for name, value in self.origin.items() if kept.get(name) != value]

    def _files_to_read(self) -> list[Path]:
        """Those of the files here that no process before this one sees."""
        here = sorted(file.name for file in partial_files(self.file))
        seen = exchange(here)
        return [self.file.with_name(name) for name in here if not any(name in names for names in seen[: rank()])]

    def begin(self, plan: Any) -> None:
        """Start over, by `plan`."""
        self._entries = []
        self._start(plan)

    def _start(self, plan: Any) -> None:
        with replacing_file(self.own) as temporary:
            temporary.write_text(json.dumps({"origin": self.origin, "plan": plan}) + "\n", encoding="utf-8")

    def work(
        self,
        name: str,
        batches: Sequence[Sequence[int]],
        result: type[Result],
        cost: Callable[[Sequence[int]], float] = len,
    ) -> BatchWork[Result]:
        """What is done and to do of one kind of result. Raises RunDirError if the file is damaged."""
        entries = [entry for entry in self._entries if entry.get("of") == name]

        def keep(entry: dict[str, Any]) -> None:
            self._append({"of": name, **entry})

        try:
            return BatchWork(batches, result, entries=entries, keep=keep, cost=cost)
        except (DamagedError, ValueError):
            raise self.damaged() from None

    def damaged(self) -> RunDirError:
        """The error that the file is damaged, so that nothing can continue from it."""
        return RunDirError(self.file, "damaged", "delete it to compute its rows again")

    def _append(self, entry: dict[str, Any]) -> None:
        # In one piece and past Python's buffers, so that nothing but the last line can be torn.
        with writing(self.own), self.own.open("ab", buffering=0) as file:
            line = (json.dumps(entry) + "\n").encode("utf-8")
            while line:  # of what there is no room for the system takes a part, and says so the next time
                line = line[file.write(line) :]
            if time.monotonic() - self._flushed >= SECONDS_PER_FLUSH:
                os.fsync(file.fileno())
                self._flushed = time.monotonic()


def partial_files(file: Path) -> list[Path]:
    """The files of results so far that are here: `file` itself, and those of other processes beside it."""
    return [*file.parent.glob(file.name), *file.parent.glob(f"{file.stem}.*{file.suffix}")]


def _whole_lines(file: Path) -> tuple[list[dict[str, Any]], int]:
    """The entries up to the first that is torn or damaged, and how many bytes they take."""
    entries: list[dict[str, Any]] = []
    size = 0
    content = file.read_bytes() if file.is_file() else b""
    for line in content.split(b"\n")[:-1]:
        try:
            entry = parse_json(line.decode("utf-8"))
        except (DamagedError, UnicodeDecodeError):
            break
        if not isinstance(entry, dict):
            break
        entries.append(entry)
        size += len(line) + 1
    return entries, size
