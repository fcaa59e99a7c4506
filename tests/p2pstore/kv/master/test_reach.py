from __future__ import annotations

import socket

import pytest

from p2pstore.kv.master import reach
from p2pstore.kv.master.reach import clients_port
from tests.ports import closed_port


def test_what_is_said_of_the_port_for_clients() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert "accepts them" in clients_port("127.0.0.1", listener.getsockname()[1])
    assert "no master runs there" in clients_port("127.0.0.1", closed_port())
    assert clients_port("nobody.invalid", 1) == "the name 'nobody.invalid' is not known here"


@pytest.mark.parametrize(
    ("error", "text"), [(TimeoutError(), "a firewall is between"), (OSError(101, "No Route"), "no route")]
)
def test_a_host_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, error: OSError, text: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(reach.socket, "create_connection", fail)
    assert text in clients_port("10.0.0.1", 1)
