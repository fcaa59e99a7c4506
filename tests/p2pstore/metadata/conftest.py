from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.p2pstore.metadata.servers import EtcdServer, need


@pytest.fixture(params=["3.4", "3.5"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EtcdServer]:
    """A running etcd of each release."""
    etcd = EtcdServer(need(request.param), tmp_path).start()
    yield etcd
    etcd.close()
