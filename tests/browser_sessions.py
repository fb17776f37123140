"""Chromium for the tests that need it, and profiles in which nothing but the page itself may be asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install 'medtune[dev]'")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("needs Chromium on the PATH: apt-get install chromium")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


class Session:
    """One browser profile; records what must not happen: requests, dialogs, errors and refusals by the policy."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(accept_downloads=True, **options)
        self.requests: list[str] = []
        self.problems: list[str] = []
        # Nothing but the file itself may be asked for; what is asked for anyhow is recorded and goes nowhere.
        self.context.route("**/*", self._route)

    def _route(self, route: Any) -> None:
        if route.request.url.startswith("file:") and route.request.is_navigation_request():
            route.continue_()
            return
        self.requests.append(route.request.url)
        route.abort()

    def open(self, path: Path) -> Any:
        page = self.context.new_page()
        page.on("dialog", lambda dialog: (self.problems.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda line: self.problems.append(line.text) if line.type in ("error", "warning") else None)
        page.goto(path.as_uri())
        return page


OpenSession = Callable[..., Session]


@pytest.fixture
def session(browser: Any) -> Iterator[OpenSession]:
    opened: list[Session] = []

    def start(**options: Any) -> Session:
        opened.append(Session(browser, **options))
        return opened[-1]

    yield start
    for one in opened:
        one.context.close()
