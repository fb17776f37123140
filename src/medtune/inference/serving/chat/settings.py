"""What `medtune chat` was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from medtune.inference.serving.address import Address


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """Where the page is served, whether a browser opens it, and whether it shows which model wrote which answer.

    `blind` leaves no way to the open page. `rater` fills in the name of who rates.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    open_browser: bool = True
    blind: bool = False
    rater: str = ""

    @property
    def address(self) -> Address:
        """Where the page is served. Its key is empty: the page has none, and says so where others can reach it."""
        return Address(self.host, self.port, key="")
