"""A process that reads pieces: jobs as lines of JSON on its stdin, what it did as lines on its stdout."""

import json
import sys
from typing import Any

from medtune.data.large.reading import Job, as_json, read_piece
from medtune.data.large.source_files import SourcePiece
from medtune.errors import MedtuneError, spell_out


def main() -> None:
    """Read the pieces that come, until no more do."""
    for line in sys.stdin:
        values = json.loads(line)
        job = Job(**{**values, "piece": SourcePiece(**values["piece"]), "present": tuple(values["present"])})
        try:
            _tell(done=as_json(read_piece(job, lambda rows: _tell(rows=rows))))
        except MedtuneError as error:
            (problem,) = error.problems
            _tell(error=[spell_out(part) for part in (problem.what, problem.problem, problem.fix)])


def _tell(**values: Any) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
