"""Which implementation of the verbs is taken, and what is said where it cannot be."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.errors import TransportUnavailable
from engine.transports.rdma.verbs import libibverbs, load


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_loaded", {})
    monkeypatch.delenv(load.VARIABLE, raising=False)


def missing(error: Exception) -> object:
    def raises() -> None:
        raise error

    return raises


def test_without_libibverbs_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libibverbs, "load", missing(OSError("libibverbs.so.1: cannot open")))
    with pytest.raises(TransportUnavailable, match="Debian: libibverbs1 and ibverbs-providers"):
        load.load_verbs()
    monkeypatch.setattr(libibverbs, "load", missing(AttributeError("undefined symbol: ibv_reg_mr_iova")))
    with pytest.raises(TransportUnavailable, match="too old: undefined symbol"):
        load.load_verbs()


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(load.VARIABLE, "pyverbs")
    monkeypatch.setitem(sys.modules, "pyverbs", None)
    monkeypatch.delitem(sys.modules, "engine.transports.rdma.verbs.pyverbs_verbs", raising=False)
    with pytest.raises(TransportUnavailable, match="pyverbs does not load"):
        load.load_verbs()
    monkeypatch.setenv(load.VARIABLE, "smoke")
    with pytest.raises(TransportUnavailable, match="'smoke', and not ctypes or pyverbs"):
        load.load_verbs()


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    code = (
        "import sys, engine.transports, engine.serving.segment_server; from pathlib import Path; "
        "print('pyverbs' in sys.modules, 'libibverbs' in Path('/proc/self/maps').read_text())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "False"]
