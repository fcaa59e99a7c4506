"""Transports by name, ours and other packages'."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engine.errors import TransportUnavailable
from engine.transports import GROUP, transport, transport_names
from engine.transports.mock import MockTransport


def test_ours() -> None:
    assert {"tcp", "local", "mock", "rdma"} <= set(transport_names())
    for name in transport_names():
        assert transport(name).name == name
    with pytest.raises(TransportUnavailable, match="there are local, mock, rdma, tcp"):
        transport("pigeon")


def test_another_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pigeons.py").write_text(
        "from engine.transports.mock import MockTransport\n"
        "class Pigeon(MockTransport):\n    name = 'pigeon'\n"
        "def wing():\n    raise OSError('broken')\n"
    )
    info = tmp_path / "pigeons-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeons\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        f"[{GROUP}]\npigeon = pigeons:Pigeon\nbroken = pigeons:wing\nwrong = pathlib:Path\nabsent = pigeons:Nothing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert "pigeon" in transport_names()
        assert isinstance(transport("pigeon"), MockTransport)
        for name in ("broken", "wrong", "absent"):
            with pytest.raises(TransportUnavailable, match=r"pigeons|pathlib"):
                transport(name)
    finally:
        sys.modules.pop("pigeons", None)
