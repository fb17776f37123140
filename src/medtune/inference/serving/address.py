"""Where the server listens, and who can reach it there."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import ip_address

from medtune.errors import ConfigError, Option

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens, and the key that it asks for; `grace` is how many seconds answers have at its end."""

    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = None
    grace: float = 30

    @property
    def is_local(self) -> bool:
        """Whether this machine alone can reach it."""
        with suppress(ValueError):
            return ip_address(self.host).is_loopback
        return self.host == "localhost"


def names_this_machine(host: str) -> bool:
    """Whether a Host header, with or without a port, has a name of this machine's own."""
    name, _, port = host.rpartition(":")
    return (name if port.isdecimal() else host).lower() in _LOCAL_NAMES


def require_key(address: Address) -> None:
    """Raises ConfigError where others than this machine could ask without a key."""
    if not address.is_local and address.key is None:
        fix = ("give ", Option("api_key"), ", or MEDTUNE_API_KEY in the environment")
        raise ConfigError(Option("host", address.host), "others than this machine can reach it", fix)


def bind(address: Address) -> socket.socket:
    """The port, taken but not listening. Raises ConfigError."""
    require_key(address)
    try:
        with ExitStack() as if_it_fails:
            family, kind, protocol, _, place = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = if_it_fails.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            if_it_fails.pop_all()
    except OSError as error:
        other = ("choose another with ", Option("port"), " or ", Option("host"))
        raise ConfigError(f"{address.host}:{address.port}", error.strerror or str(error), other) from None
    return listener


def shown_address(listener: socket.socket) -> str:
    """Host and port as a URL has them."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
