from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys

import pytest

from engine.errors import TransportUnavailable
from p2pstore.bench.store.real_master import RealMaster, is_its


def test_it_listens_while_it_is_used() -> None:
    if importlib.util.find_spec("mooncake") is None:
        pytest.skip("UPSTREAM'S MASTER IS NOT STARTED: its wheel is not installed")
    with RealMaster() as master:
        host, _, port = master.address.rpartition(":")
        socket.create_connection((host, int(port)), 20).close()
    with pytest.raises(OSError):
        socket.create_connection((host, int(port)), 20).close()


def test_without_the_wheel_it_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(TransportUnavailable, match="mooncake_master, is not installed"), RealMaster():
        pass


def test_a_port_at_which_somebody_else_listens_is_not_its() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        port = listener.getsockname()[1]
        assert is_its(os.getpid(), port)
        assert not is_its(other.pid, port)
        other.kill()
    assert not is_its(os.getpid(), port)
