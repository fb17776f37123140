"""The chat's page, served and looked at: every request that leaves this machine is recorded, and goes nowhere."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit


class Visitor:
    """One browser profile on the page at `url`; `strays` are requests to elsewhere, `problems` errors of the page."""

    def __init__(self, browser: Any, url: str, *, width: int = 1280, dark: bool = False) -> None:
        viewport = {"width": width, "height": 850}
        self.context = browser.new_context(viewport=viewport, color_scheme="dark" if dark else "light")
        self.strays: list[str] = []
        self.problems: list[str] = []
        self.url = url
        self.context.route("**/*", self._route)
        self.page = self.context.new_page()
        self.page.on("dialog", lambda dialog: (self.problems.append(dialog.message), dialog.dismiss()))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda line: self.problems.append(line.text) if line.type == "error" else None)
        self.page.on("websocket", lambda socket: self.strays.append(socket.url))
        self.page.goto(url)
        self.page.wait_for_selector("#mt-ask")

    def _route(self, route: Any) -> None:
        asked = urlsplit(route.request.url)
        if asked.scheme in ("data", "blob") or asked.netloc == urlsplit(self.url).netloc:
            route.continue_()
            return
        self.strays.append(route.request.url)
        route.abort()

    def ask(self, question: str) -> None:
        self.page.fill("#mt-question textarea", question)
        self.page.click("#mt-ask")

    def wait_until_done(self) -> None:
        """Until the question is taken, which empties its box, and no answer is being written."""
        box = "document.querySelector('#mt-question textarea').value === ''"
        written = "document.querySelector('#mt-stop').disabled && !document.querySelector('.mt-writing')"
        self.page.wait_for_function(f"{box} && {written}")

    def choose(self, column: str, value: str) -> None:
        self.page.locator(f"#mt-{column} label", has_text=value).click()

    def cards(self) -> list[str]:
        return [" ".join(text.split()) for text in self.page.locator(".mt-card").all_inner_texts()]

    def is_within_its_width(self) -> bool:
        """Nothing has to be scrolled sideways, and no text is cut off at a side."""
        return self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
