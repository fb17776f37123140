"""Serves the page in a thread, on an address of this machine alone unless told otherwise."""

from __future__ import annotations

import signal
import socket
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from medtune.inference.serving.address import shown_address
from medtune.inference.serving.chat.local_only import LocalOnly, switch_telemetry_off
from medtune.runtime.progress import say

if TYPE_CHECKING:
    from medtune.inference.serving.chat.page import Page
    from medtune.inference.serving.chat.settings import ChatSettings

# Those that every system has; Gradio's own would come from Google.
_FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_MONO = ["ui-monospace", "Menlo", "Consolas", "monospace"]
# Nothing is uploaded to this page.
_LARGEST_UPLOAD = "1kb"


@dataclass(frozen=True, slots=True)
class ServedPage:
    """Where the page is, and the thread that serves it."""

    url: str
    thread: threading.Thread


def page_app(page: Page, title: str, *, is_local: bool) -> Any:
    """The page as an ASGI application."""
    switch_telemetry_off()
    import gradio as gr
    from fastapi import FastAPI

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(LocalOnly, is_local=is_local)
    theme = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=_FONT, font_mono=_MONO)
    return gr.mount_gradio_app(
        app,
        page.blocks(title),
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=_LARGEST_UPLOAD,
        ssr_mode=False,
        show_error=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css=(files("medtune.inference.serving.chat") / "assets" / "chat.css").read_text(encoding="utf-8"),
    )


@contextmanager
def serving_page(page: Page, title: str, settings: ChatSettings, listener: socket.socket) -> Iterator[ServedPage]:
    """Serve on `listener`, which is bound, until this block ends; opens a browser if that is wanted."""
    import uvicorn

    app = page_app(page, title, is_local=settings.address.is_local)
    config = uvicorn.Config(app, ws="none", log_config=None, log_level="warning", server_header=False)
    config.timeout_graceful_shutdown = 2
    server = uvicorn.Server(config)
    listener.listen(128)
    # In a thread of its own it takes no signal handlers.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="medtune-page", daemon=True)
    thread.start()
    url = f"http://{shown_address(listener)}/"
    if not settings.address.is_local:
        say(f"{settings.host} can be reached from other machines, and the page asks for no password")
    if settings.open_browser:
        webbrowser.open(url)
    try:
        yield ServedPage(url, thread)
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def wait_for_signal(thread: threading.Thread) -> None:
    """Until Ctrl-C or SIGTERM, or the server's own end; outside of the main thread, until that alone."""
    if threading.current_thread() is not threading.main_thread():
        thread.join()
        return
    ended = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in numbers}
    try:
        while thread.is_alive() and not ended.wait(0.5):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
