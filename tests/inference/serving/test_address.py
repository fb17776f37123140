"""Who can reach the server, and by which name."""

from __future__ import annotations

import pytest

from medtune.errors import ConfigError
from medtune.inference.serving.address import Address, bind, names_this_machine, shown_address


@pytest.mark.parametrize("host", ["localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8000"])
def test_names_of_this_machine(host: str) -> None:
    assert names_this_machine(host)


@pytest.mark.parametrize("host", ["", "8000", "evil.example", "localhost.evil.example:80", "127.0.0.1:80:80", "::1"])
def test_names_of_others(host: str) -> None:
    assert not names_this_machine(host)


def test_others_need_a_key() -> None:
    with pytest.raises(ConfigError, match="others than this machine can reach it; give --api-key"):
        bind(Address("0.0.0.0", 0))


def test_a_port_that_is_taken_is_said() -> None:
    with bind(Address(port=0)) as listener:
        listener.listen()
        port = listener.getsockname()[1]
        assert shown_address(listener) == f"127.0.0.1:{port}"
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
            bind(Address(port=port))
