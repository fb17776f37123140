"""Solve every extra of medtune with constraints.txt, from nothing, and name each package that has no pin there.

pip takes an old release in silence where no newer one suits the rest, such as mlflow 1.27. Nothing is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]


def read_pins() -> dict[str, str]:
    """Versions in constraints.txt, by name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def solve(requirements: list[str]) -> dict[str, str]:
    """The versions that pip would install with the constraints, by name."""
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report", "-", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "-c", str(ROOT / "constraints.txt"), *requirements]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    found = [package["metadata"] for package in report["install"]]
    # Without the part that tells builds of one version from each other: a pin selects either of torch's.
    return {canonicalize_name(one["name"]): Version(one["version"]).public for one in found}


def main() -> None:
    """Solve all extras at once. Exits with 1 where a package has another version than its pin, or none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: asked for name, asked in project["optional-dependencies"].items() if name != "dev"}
    solved = solve([requirement for asked in extras.values() for requirement in asked])
    pins = read_pins()
    wrong = {name: version for name, version in solved.items() if pins.get(name) != version}
    for name, asked in extras.items():
        top = canonicalize_name(Requirement(asked[0]).name)
        print(f"extra {name}: {top} {solved[top]}, pinned {pins.get(top)}")
    lines = [f"{name} {version}: constraints.txt has {pins.get(name)}\n" for name, version in wrong.items()]
    sys.exit("".join(lines) or None)


if __name__ == "__main__":
    main()
