"""`medtune serve`: base and tuned model behind an OpenAI-compatible API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from medtune.cli.options import Target, spread
from medtune.runtime.process import prepare_process

_KEY_HELP = "The key that clients send; others than this machine cannot ask without. Better in MEDTUNE_API_KEY."
_VLLM_HELP = "vLLM's command, where it is not on the PATH; also in MEDTUNE_VLLM."


@dataclass(frozen=True)
class Place:
    """Where the server listens."""

    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1"
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")] = 8000
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", metavar="KEY", envvar="MEDTUNE_API_KEY", show_envvar=False, help=_KEY_HELP),
    ] = None


@dataclass(frozen=True)
class Most:
    """What is taken at most."""

    rows: Annotated[int, typer.Option("--rows", min=1, max=512, help="Requests answered at once, for each model.")] = 64
    queue: Annotated[int, typer.Option("--queue", min=0, help="Requests that may wait; more get status 429.")] = 256
    max_prompt_tokens: Annotated[int, typer.Option("--max-prompt-tokens", min=1, help="Tokens of a prompt.")] = 1024
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", min=1, max=32768, help="Tokens of an answer; the run's cap unless given."),
    ] = None
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds for a whole answer.")] = 300
    grace: Annotated[float, typer.Option("--grace", min=0, help="Seconds for answers under way at a signal.")] = 30


@spread
def serve(
    target: Target,
    place: Place = Place(),
    most: Most = Most(),
    engine: Annotated[
        Literal["medtune", "vllm"], typer.Option("--engine", help="What answers; vllm starts `vllm serve`.")
    ] = "medtune",
    vllm: Annotated[str | None, typer.Option("--vllm", metavar="PATH", help=_VLLM_HELP)] = None,
) -> None:
    """Answer OpenAI's clients, as `tuned` and as `base`. Not medical advice.

    Both models are one set of weights. SIGTERM and Ctrl-C let answers under way end.
    """
    from medtune.inference.serving.address import Address
    from medtune.inference.serving.limits import Bounds, Limits

    address = Address(place.host, place.port, place.api_key, most.grace)
    limits = Limits(most.rows, most.queue, most.max_prompt_tokens, most.max_new_tokens)
    if engine == "vllm":
        from medtune.inference.serving.vllm import serve_with_vllm

        prepare_process()
        raise typer.Exit(serve_with_vllm(target, address, limits, vllm))
    from medtune.inference.serving.extra import require_extra

    require_extra()
    prepare_process()
    from medtune.inference.serving.server import serve as serve_here

    serve_here(target, address, limits, Bounds(answer_seconds=most.timeout))
