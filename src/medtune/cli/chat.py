"""`medtune chat`: the tuned model and its base on a local page, or in the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from medtune.cli.options import Target, spread
from medtune.runtime.process import prepare_process


@dataclass(frozen=True)
class Where:
    """Where the page is served, and who looks at it."""

    host: Annotated[
        str, typer.Option("--host", help="The page's address; another than this machine's own lets others in.")
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Its port; 0 takes any that is free.")] = 7860
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False


@dataclass(frozen=True)
class How:
    """What is shown, and where."""

    blind: Annotated[
        bool, typer.Option("--blind", help="Hide which model wrote which answer, and take ratings of both.")
    ] = False
    rater: Annotated[str, typer.Option("--rater", metavar="NAME", help="Who rates; can be changed on the page.")] = ""
    terminal: Annotated[bool, typer.Option("--terminal", help="Chat in the terminal, or about lines of a pipe.")] = (
        False
    )


@spread
def chat(target: Target, where: Where = Where(), how: How = How()) -> None:
    """Chat with the tuned model and its base side by side. Not medical advice.

    On a page in the browser that asks nothing of the network, or in the terminal where there is none.
    """
    prepare_process()
    from medtune.inference.serving.chat.settings import ChatSettings
    from medtune.inference.serving.chat.starting import chat as start

    settings = ChatSettings(where.host, where.port, not where.no_browser, how.blind, how.rater)
    start(target, settings, in_terminal=how.terminal)
