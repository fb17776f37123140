"""What `medtune chat` was asked for."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7860


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """Where the page is served, whether a browser opens it, and whether it shows which model wrote which answer.

    `blind` leaves no way to the open page. `rater` fills in the name of who rates.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    open_browser: bool = True
    blind: bool = False
    rater: str = ""
