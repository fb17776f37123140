"""Draws docs/report.png, the head of a report, from a stored run of the demo: `python docs/report_picture.py`.

`python docs/report_picture.py runs/demo` stores that run's files first, and README.md shows how it ended.
`report.stamp` holds the fingerprint of all that the picture shows, by which a test sees that it is stale; pixels differ
from one Chromium to the next.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from medtune.publishing.report import read_report, render_report
from medtune.run_dir.directory import RunDir

DOCS = Path(__file__).resolve().parent
STORED, PICTURE, STAMP = DOCS / "report_run.tar.xz", DOCS / "report.png", DOCS / "report.stamp"
# As wide as GitHub shows a README without shrinking it much.
WIDTH = 1120
MARGIN = 24


def store(run: RunDir) -> None:
    """Keep what the report reads of `run` in one archive, with no date or owner."""
    files = [run.config_file, run.provenance_file, run.history_file, run.audit_file]
    for stage in ("baseline", "tuned", "compare"):
        files += [run.path / name for name in run.stage_records[stage]["files"]]
    with tarfile.open(STORED, "w:xz") as archive:
        for file in files:
            entry = tarfile.TarInfo(str(file.relative_to(run.path)))
            entry.size = file.stat().st_size
            with file.open("rb") as content:
                archive.addfile(entry, content)


def unpack(folder: Path) -> RunDir:
    """The stored run, in `folder`."""
    with tarfile.open(STORED) as archive:
        archive.extractall(folder, filter="data")
    return RunDir(folder)


def render() -> str:
    """The stored run's report."""
    with tempfile.TemporaryDirectory() as folder:
        return render_report(read_report(unpack(Path(folder))))


def fingerprint() -> str:
    """The SHA-256 of this script, the stored run, and the page as far as the picture shows it: styles, markup, text.

    The charts' markup is left out, which matplotlib writes a little differently from version to version, and the
    policy, which changes with the page's script.
    """
    shown = render().partition('<section id="controls"')[0]
    shown = re.sub(r"<svg.*?</svg>|<meta http-equiv[^>]*>", "", shown, flags=re.S)
    digest = hashlib.sha256()
    for part in (Path(__file__).read_bytes(), STORED.read_bytes(), shown.encode()):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def draw() -> None:
    """Write the picture and its stamp."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "report.html"
        file.write_text(render(), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1200}, color_scheme="light")
        page.goto(file.as_uri())
        # Down to the end of the warnings, so that no line is cut in two.
        box = page.locator(".warnings").bounding_box()
        page.screenshot(
            path=PICTURE, clip={"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + MARGIN}
        )
        browser.close()
    STAMP.write_text(fingerprint() + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:]:
        store(RunDir(Path(sys.argv[1])))
    draw()
