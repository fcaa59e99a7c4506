"""A GPU for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.cuda.fake_driver import FakeDriver
from tests.engine.cuda.gpus import fake


@pytest.fixture
def gpu() -> Iterator[FakeDriver]:
    with fake(delay=0.001) as driver:
        yield driver
