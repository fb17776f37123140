"""Two hosts on this machine: network namespaces that reach each other, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

INTERFACE = "to-other"


@dataclass(frozen=True)
class Host:
    """A network namespace and its address on the link."""

    name: str
    address: str

    def command(self, *command: str) -> list[str]:
        """`command` as on this host."""
        return ["ip", "netns", "exec", self.name, *command]


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host] | None]:
    """Two hosts while the block runs, or None where the machine makes none."""
    hosts = [Host(f"medtune-{os.getpid()}-{letter}", f"10.213.77.{place}") for place, letter in ((1, "a"), (2, "b"))]
    try:
        yield (hosts[0], hosts[1]) if shutil.which("ip") and all(map(_ip, _commands(hosts))) else None
    finally:
        if shutil.which("ip"):
            for host in hosts:
                _ip(f"netns del {host.name}")


def _commands(hosts: list[Host]) -> Iterator[str]:
    a, b = hosts
    for host in hosts:
        yield f"netns add {host.name}"
    yield f"link add {INTERFACE} netns {a.name} type veth peer name {INTERFACE} netns {b.name}"
    for host in hosts:
        yield f"-n {host.name} address add {host.address}/24 dev {INTERFACE}"
        yield f"-n {host.name} link set {INTERFACE} up"
        yield f"-n {host.name} link set lo up"


def _ip(arguments: str) -> bool:
    return subprocess.run(["ip", *arguments.split()], capture_output=True, timeout=20).returncode == 0
