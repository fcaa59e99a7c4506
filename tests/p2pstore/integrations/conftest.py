"""What tests of plug-ins start from: a master that they may stop, and a store that has time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pstore.integrations import patient_store
from tests.p2pstore.kv.client.masters import OurMaster

FOREVER = 60
SLOW = 5.0
"""Far over what a miss may take, far below what a client waits for a master that stands still."""

AS_EVER = pytest.mark.parametrize("waits", [False], indirect=True, ids=[""])
"""For tests of what is late."""


@pytest.fixture
def master(tmp_path: Path) -> Iterator[OurMaster]:
    made = OurMaster(tmp_path / "master.log", lease_ms=500)
    yield made
    made.kill()


@pytest.fixture
def waits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long on a slow day is waited for, if a test is not ``AS_EVER``."""
    if getattr(request, "param", True):
        monkeypatch.setenv(patient_store.PATIENCE, str(FOREVER))
        monkeypatch.setattr(patient_store, "SAVE_SECONDS", float(FOREVER))
