"""A GPU for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.cuda import peers
from engine.cuda.fake_driver import FakeDriver
from tests.engine.cuda.gpus import WAIT, fake, without_torch


@pytest.fixture(autouse=True)
def _time_for_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow day is no GPU that does not copy."""
    monkeypatch.setattr(peers, "TRY_SECONDS", WAIT)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    without_torch(monkeypatch)
    with fake(delay=0.001) as driver:
        yield driver
