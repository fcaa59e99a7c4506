"""Ports that tests may rely on."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import closed_port, reserved_port

ROOT = Path(__file__).resolve().parents[1]


def test_a_reserved_port_can_be_listened_at() -> None:
    first = reserved_port(3)
    for port in range(first, first + 3):
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_no_two_processes_get_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process is asked for the very ports that this one has, and must take others."""
    mine = reserved_port()
    code = (
        "import random\n"
        "from tests import ports\n"
        f"wanted = iter([{mine}])\n"
        "dice = random.randrange\n"
        "ports.random.randrange = lambda low, high: next(wanted, None) or dice(low, high)\n"
        "print(ports.reserved_port())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) != mine


def test_a_closed_port_refuses() -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", closed_port()), timeout=30)
