"""What the server takes at most, of the model and of its clients."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that an engine takes: requests answered at once for each model, and waiting; tokens of each request.

    `new_tokens` is the run's cap where it is None.
    """

    rows: int = 64
    waiting: int = 256
    prompt_tokens: int = 1024
    new_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a client may take: bytes of a body, seconds for its headers, its body and a whole answer, connections."""

    body_bytes: int = 2**20
    header_seconds: float = 10
    body_seconds: float = 20
    answer_seconds: float = 300
    connections: int = 2048
