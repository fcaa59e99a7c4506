from __future__ import annotations

import json

import pytest

from engine.errors import RemoteProtocolError, SegmentNotFound
from engine.metadata import records
from engine.metadata.base import FoundSegment, KeyValueStore, RpcEndpoint
from engine.metadata.stored import StoredDirectory
from tests.engine.metadata.descriptors import SEGMENT

AT = RpcEndpoint("127.0.0.1", 7)
RPC, RAM = "mooncake/rpc_meta/127.0.0.1:7", "mooncake/ram/127.0.0.1:7"


class Values(KeyValueStore):
    """A server that remembers what was put."""

    url = "test://values"

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.closed = False

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def put(self, key: str, value: bytes) -> None:
        self.puts.append(key)
        self.values[key] = value

    def delete(self, key: str) -> None:
        self.values.pop(key, None)

    def close(self) -> None:
        self.closed = True


def test_what_is_published_is_found_until_it_is_withdrawn() -> None:
    store = Values()
    with_cluster, without = StoredDirectory(store, "blue"), StoredDirectory(store)
    with_cluster.publish(SEGMENT, AT)
    assert with_cluster.resolve(SEGMENT.name) == FoundSegment(SEGMENT, AT.host, AT.port)
    assert with_cluster.endpoint(SEGMENT.name) == AT
    with pytest.raises(SegmentNotFound, match=r"'127\.0\.0\.1:7' is not known at test://values"):
        without.resolve(SEGMENT.name)
    with_cluster.withdraw(SEGMENT.name)
    assert store.values == {}
    with_cluster.withdraw(SEGMENT.name)


def test_an_address_that_is_there_is_not_put_again() -> None:
    """Some of upstream's servers refuse a second PUT of it."""
    store = Values()
    for directory in (StoredDirectory(store), StoredDirectory(store)):
        directory.publish(SEGMENT, AT)
        directory.publish(SEGMENT, AT)
    assert store.puts == [RPC, RAM, RAM, RAM, RAM]


def test_after_it_was_withdrawn_an_address_is_put_again() -> None:
    store = Values()
    directory = StoredDirectory(store)
    directory.publish(SEGMENT, AT)
    directory.withdraw(SEGMENT.name)
    directory.publish(SEGMENT, AT)
    assert directory.endpoint(SEGMENT.name) == AT


def test_who_takes_a_name_over_replaces_its_address() -> None:
    store = Values()
    StoredDirectory(store).publish(SEGMENT, AT)
    directory = StoredDirectory(store)
    directory.publish(SEGMENT, RpcEndpoint("127.0.0.1", 9))
    assert directory.endpoint(SEGMENT.name).port == 9


def test_a_key_of_its_own_leads_to_the_name_in_the_descriptor() -> None:
    store = Values()
    directory = StoredDirectory(store)
    directory.publish(SEGMENT, AT)
    store.put("mooncake/checkpoint/7", records.encode_segment(SEGMENT))
    assert directory.resolve("checkpoint/7") == FoundSegment(SEGMENT, AT.host, AT.port)


def test_half_a_segment_is_none() -> None:
    store = Values()
    directory = StoredDirectory(store)
    directory.publish(SEGMENT, AT)
    store.delete(RPC)
    with pytest.raises(SegmentNotFound):
        directory.resolve(SEGMENT.name)


def test_a_foreign_value_is_the_peers_fault() -> None:
    store = Values()
    store.values = {RPC: b"{}", RAM: json.dumps({"name": 3}).encode()}
    directory = StoredDirectory(store)
    with pytest.raises(RemoteProtocolError):
        directory.endpoint(SEGMENT.name)
    with pytest.raises(RemoteProtocolError):
        directory.resolve(SEGMENT.name)


def test_the_directory_closes_its_server() -> None:
    store = Values()
    StoredDirectory(store).close()
    assert store.closed
