"""Give an environment what a wheel in it declares, and no more: `python link_dependencies.py SITE_PACKAGES [EXTRA …]`.

Every distribution that medtune or one of these extras requires, directly or not, is linked from the environment that
runs this script, where the pinned versions are installed already. What only the tests need is left out, so that an
import of it fails.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

from packaging.requirements import Requirement


def required(wheel: Distribution, extras: Iterable[str]) -> dict[str, Distribution]:
    """The distributions that `wheel` with these extras needs, by name."""
    found: dict[str, Distribution] = {}
    waiting = [(wheel, frozenset(extras))]
    seen = set()
    while waiting:
        one, extras = waiting.pop()
        for requirement in map(Requirement, one.requires or []):
            if requirement.marker and not any(requirement.marker.evaluate({"extra": e}) for e in extras | {""}):
                continue
            key = requirement.name, frozenset(requirement.extras)
            if key not in seen:
                seen.add(key)
                found[requirement.name] = distribution(requirement.name)
                waiting.append((found[requirement.name], key[1]))
    return found


def main(target: Path, *extras: str) -> None:
    """Link the top-level files and folders of every distribution needed."""
    (wheel,) = target.glob("medtune-*.dist-info")
    for needed in required(PathDistribution(wheel), extras).values():
        for name in {file.parts[0] for file in needed.files or []} - {"..", "__pycache__"}:
            if not (target / name).exists():
                (target / name).symlink_to(Path(str(needed.locate_file(name))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
