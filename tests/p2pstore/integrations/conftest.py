"""What tests of plug-ins start from: a master that they may stop, and a store that has time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pstore.integrations import patient_store
from p2pstore.kv.client import line
from tests.p2pstore.kv.client.masters import OurMaster

FOREVER = 60
SLOW = 60.0
"""Far over what a miss may take, far below what a client waits for a master that stands still."""

FOR_A_MASTER = 10 * SLOW
"""What a client waits for one, in tests of what is late."""

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
    else:
        monkeypatch.setattr(line, "CALL_SECONDS", FOR_A_MASTER)
