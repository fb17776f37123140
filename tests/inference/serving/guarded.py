"""Runs `medtune` with sockets to this machine alone: what else is tried is written to a file, and refused.

python guarded.py FILE chat ADAPTER ...
"""

import sys
from ipaddress import ip_address


def guard(file: str) -> None:
    log = open(file, "a", buffering=1, encoding="utf-8")  # noqa: SIM115

    def is_local(host: object) -> bool:
        try:
            return host in (None, "", "localhost") or ip_address(str(host)).is_loopback
        except ValueError:
            return False

    def check(event: str, arguments: tuple) -> None:
        if event == "socket.getaddrinfo":
            host = arguments[0]
        elif event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"):
            address = arguments[1]
            host = address[0] if isinstance(address, tuple) else None  # a path is a socket of this machine
        elif event == "socket.gethostbyname":
            host = arguments[0]
        else:
            return
        if not is_local(host.decode() if isinstance(host, bytes) else host):
            log.write(f"{event} {host}\n")
            raise PermissionError(f"{event} {host}")

    sys.addaudithook(check)


if __name__ == "__main__":
    guard(sys.argv[1])
    sys.argv = ["medtune", *sys.argv[2:]]
    from medtune.__main__ import main

    main()
