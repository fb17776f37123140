"""What the site holds besides docs/: pages and files elsewhere in the repository, which the pages link."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "deploy/*", "benchmarks/README.md", "notebooks/*.ipynb")
_LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add what is outside docs/ at its path in the repository."""
    for pattern in OUTSIDE:
        for file in sorted(ROOT.glob(pattern)):
            if file.is_file():
                files.append(File.generated(config, file.relative_to(ROOT).as_posix(), abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of a page as the site lays pages out: what is in docs/ is at its root, all else where it is in here."""
    folder = Path("docs") if page.file.generated_by is None else Path()
    return _LINK.sub(lambda link: _moved(link[1], folder / Path(page.file.src_uri).parent, page), markdown)


def _moved(target: str, folder: Path, page: Any) -> str:
    """`target`, a link from a page in `folder` of the repository, from that page's place in the site."""
    parts: list[str] = []
    for part in (folder / target).parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    if parts[:1] == ["docs"]:
        parts = parts[1:]
    return "../" * (len(Path(page.file.src_uri).parts) - 1) + "/".join(parts)
