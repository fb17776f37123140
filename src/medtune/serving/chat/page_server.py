"""Serves the page until Ctrl-C, on an address of this machine alone unless told otherwise."""

from __future__ import annotations

import signal
import socket
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from medtune.errors import ConfigError, Option
from medtune.runtime.progress import say
from medtune.serving.chat.local_only import LocalOnly, is_loopback, switch_telemetry_off

if TYPE_CHECKING:
    from medtune.serving.chat.page import Page
    from medtune.serving.chat.settings import ChatSettings

# Those that every system has; Gradio's own would come from Google.
_FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
_MONO = ["ui-monospace", "Menlo", "Consolas", "monospace"]
# Nothing is uploaded to this page.
_LARGEST_UPLOAD = "1kb"


def page_app(page: Page, title: str, host: str) -> Any:
    """The page as an ASGI application."""
    switch_telemetry_off()
    import gradio as gr
    from fastapi import FastAPI

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(LocalOnly, host=host)
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
        css=(files("medtune.serving.chat") / "assets" / "chat.css").read_text(encoding="utf-8"),
    )


def serve_page(page: Page, title: str, settings: ChatSettings) -> None:
    """Serve until a signal comes. Raises ConfigError where the address cannot be had."""
    import uvicorn

    with _listening(settings.host, settings.port) as listener:
        app = page_app(page, title, settings.host)
        config = uvicorn.Config(app, log_config=None, log_level="warning", lifespan="on", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        # In a thread of its own it takes no signal handlers.
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="medtune-page", daemon=True)
        thread.start()
        url = f"http://{_name(settings.host)}:{listener.getsockname()[1]}/"
        _say_where(url, settings)
        if settings.open_browser:
            webbrowser.open(url)
        try:
            _wait_for_signal(thread)
        finally:
            server.should_exit = True
            thread.join(timeout=10)


def _say_where(url: str, settings: ChatSettings) -> None:
    say(f"the page is at {url} until Ctrl-C", verbatim=True)
    if not is_loopback(settings.host):
        say(f"{settings.host} can be reached from other machines, and the page asks for no password")


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(128)
        except (OSError, OverflowError) as error:
            problem = getattr(error, "strerror", None) or str(error)
            fix = ("name another ", Option("port"), " or ", Option("host"))
            raise ConfigError(f"{host}:{port}", f"cannot be listened on ({problem})", fix) from None
        yield listener


def _name(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _wait_for_signal(thread: threading.Thread) -> None:
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
