"""The chat page and the OpenAI-compatible server from Python: each in threads of this process, behind a handle."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypedDict, Unpack

from medtune.api.calls import StrPath
from medtune.api.runs import Run
from medtune.api.working import working
from medtune.errors import ConfigError

if TYPE_CHECKING:
    from medtune.inference.serving.address import Address
    from medtune.inference.serving.limits import Limits


class ServerSettings(TypedDict, total=False):
    """What `serve` takes at most, and what answers; as `medtune serve` has it where it is left out.

    `rows` are requests answered at once for each model, `queue` those that may wait; `timeout` is the seconds of a
    whole answer, and `grace` those that answers under way have at the end. `vllm` is vLLM's command.
    """

    rows: int
    queue: int
    max_prompt_tokens: int
    max_new_tokens: int | None
    timeout: float
    grace: float
    engine: Literal["medtune", "vllm"]
    vllm: str | None


@dataclass(frozen=True, slots=True)
class _Settings:
    rows: int = 64
    queue: int = 256
    max_prompt_tokens: int = 1024
    max_new_tokens: int | None = None
    timeout: float = 300
    grace: float = 30
    engine: str = "medtune"
    vllm: str | None = None

    def __post_init__(self) -> None:
        least = {"rows": 1, "queue": 0, "max_prompt_tokens": 1, "max_new_tokens": 1, "timeout": 1, "grace": 0}
        for name, value in ((name, getattr(self, name)) for name in least):
            if value is not None and value < least[name]:
                raise ConfigError(name, f"must be at least {least[name]}, got {value}")
        if self.engine not in ("medtune", "vllm"):
            raise ConfigError("engine", f"must be 'medtune' or 'vllm', got {self.engine!r}")


class Server:
    """What serves at `url`; `close`, or the end of a `with` block, ends it and frees its model."""

    def __init__(self, url: str, open_parts: ExitStack) -> None:
        self.url = url
        self._open_parts = open_parts

    def close(self) -> None:
        """End it, once answers under way have ended or their time is over; a second time does nothing."""
        self._open_parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Server({self.url!r})"


def chat(
    target: Run | StrPath,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    open_browser: bool = True,
    blind: bool = False,
    rater: str = "",
) -> Server:
    """Open the chat page: the tuned model and its base side by side. Not medical advice.

    `target` is a run, an adapter or a merged model; `port` 0 takes one that is free. `blind` hides which model wrote
    which answer, and takes ratings, by `rater`. Raises MedtuneError, also where the extra `chat` is not installed.

    >>> with medtune.chat("runs/demo", port=0, open_browser=False) as page:
    ...     print(page.url)
    http://127.0.0.1:.../
    """
    with working():
        from medtune.inference.serving.chat.settings import ChatSettings
        from medtune.inference.serving.chat.starting import serving_chat

        parts = ExitStack()
        page = parts.enter_context(serving_chat(_target(target), ChatSettings(host, port, open_browser, blind, rater)))
        return Server(page.url, parts)


def serve(
    target: Run | StrPath,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    **settings: Unpack[ServerSettings],
) -> Server:
    """Answer OpenAI's clients at the `url` of what this returns, as `tuned` and as `base`. Not medical advice.

    `target` is a run, an adapter or a merged model; `port` 0 takes one that is free, and `api_key` is what clients have
    to send. `settings` are those of `ServerSettings`. Raises MedtuneError, also where the extra `serve` is not
    installed.

    >>> with medtune.serve("runs/demo", port=0, max_new_tokens=64) as server:
    ...     print(server.url)
    http://127.0.0.1:.../v1
    """
    chosen = _Settings(**settings)
    with working():
        from medtune.inference.serving.address import Address
        from medtune.inference.serving.limits import Limits

        address = Address(host, port, api_key, chosen.grace)
        limits = Limits(chosen.rows, chosen.queue, chosen.max_prompt_tokens, chosen.max_new_tokens)
        parts = ExitStack()
        return Server(parts.enter_context(_serving(_target(target), address, limits, chosen)), parts)


def _serving(target: str, address: Address, limits: Limits, chosen: _Settings) -> AbstractContextManager[str]:
    if chosen.engine == "vllm":
        from medtune.inference.serving.vllm import serving_with_vllm

        return serving_with_vllm(target, address, limits, chosen.vllm)
    from medtune.inference.serving.extra import require_extra

    require_extra()
    from medtune.inference.serving.limits import Bounds
    from medtune.inference.serving.server import serving

    return serving(target, address, limits, Bounds(answer_seconds=chosen.timeout))


def _target(target: Run | StrPath) -> str:
    return str(target.path) if isinstance(target, Run) else os.fspath(target)
