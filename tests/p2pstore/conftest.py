"""What several tests of the store start from."""

from __future__ import annotations

import pytest


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """A metadata store in memory that belongs to one test."""
    return f"memory://{request.node.name.split('[')[0]}"
