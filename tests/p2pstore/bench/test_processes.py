"""What benches start: an etcd that is theirs, whoever else comes to listen at a port meanwhile."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pstore.bench.places import Loopback
from p2pstore.bench.processes import ETCD_TRIES, end, started_etcd
from p2pstore.errors import MetadataUnavailable
from p2pstore.metadata.urls import open_store

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="NO ETCD: the tests of benches did not run")


class Taken(Loopback):
    """Ports at some of which somebody else has come to listen, who answers nothing."""

    def __init__(self, stack: contextlib.ExitStack, times: int) -> None:
        self._stack = stack
        self._times = times
        self.asked = 0

    def ports(self) -> tuple[int, int]:
        self.asked += 1
        client, peer = super().ports()
        if self.asked <= self._times:
            other = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            client = other.getsockname()[1]
        return client, peer


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


async def test_an_etcd_whose_port_is_taken_is_tried_at_another(stack: contextlib.ExitStack, tmp_path: Path) -> None:
    places = Taken(stack, 2)
    etcd = started_etcd(places, tmp_path)
    try:
        assert places.asked == 3
        store = open_store(etcd.url)
        try:
            assert await store.get("nothing") is None
        finally:
            await store.close()
    finally:
        end([etcd])
    assert not etcd.alive


def test_where_no_port_can_be_had_it_says_why(stack: contextlib.ExitStack, tmp_path: Path) -> None:
    places = Taken(stack, ETCD_TRIES)
    with pytest.raises(MetadataUnavailable, match="address already in use"):
        started_etcd(places, tmp_path)
    assert places.asked == ETCD_TRIES
