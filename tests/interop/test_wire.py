"""The store's wire, as the real releases have it: ids and hashes in their binaries, and their master's answers to ours."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from engine.net import addresses
from engine.rpc import messages as m
from engine.rpc.calls import read_answer, write_call
from engine.rpc.codes import Code
from engine.rpc.framing import Answer, Splitter
from engine.rpc.methods import METHODS, NEWEST
from tests.interop.store_master import real_master
from tests.interop.wheels import OLD, OLDEST, wheel

SECONDS = 60
CLIENT = bytes(range(1, 17))

RELEASES = [("0.3.9", OLDEST), ("0.3.11", OLD), ("0.3.13", "newest")]
"""Generations, and a release of each."""


@pytest.mark.parametrize(("generation", "release"), RELEASES)
def test_each_id_and_each_hash_stands_in_the_master_of_its_release(generation: str, release: str) -> None:
    """They are constants in its code; four bytes are found by chance in one master of a thousand."""
    binary = (wheel(release).package / "mooncake_master").read_bytes()
    missing = []
    for method in METHODS.values():
        if generation not in method.requests:
            continue
        codec = method.requests[generation].codec
        numbers = [method.function, method.answers[generation].hash & ~1, *([codec.hash & ~1] if codec else [])]
        for number in numbers:
            found = (number.to_bytes(4, "little"), (number | 1).to_bytes(4, "little"))
            if not any(each in binary for each in found):
                missing.append((method.name, hex(number)))
    assert missing == []


class Wire:
    """A client of the real master that is nothing but our codec and a socket."""

    def __init__(self, address: str, generation: str) -> None:
        self.generation = generation
        self._socket = socket.create_connection(addresses.parse(address), timeout=SECONDS)
        self._splitter = Splitter(peer=address, answers=True)
        self._sequence = 0

    def __call__(self, method: str, *args: Any) -> Any:
        return read_answer(self.frame(method, *args), self.generation, method, "the real master")

    def frame(self, method: str, *args: Any) -> Answer:
        self._sequence += 1
        self._socket.sendall(write_call(self._sequence, self.generation, method, args))
        while True:
            data = self._socket.recv(1 << 16)
            assert data, "the real master closed the connection"
            for answer in self._splitter.answers(data):
                assert answer.sequence == self._sequence
                return answer

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=RELEASES, ids=lambda each: each[1])
def wire(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    generation, release = request.param
    with real_master(wheel(release), tmp_path_factory.mktemp("master")) as address:
        client = Wire(address, generation)
        yield client
        client.close()


def test_our_calls_are_understood_by_the_real_master_and_its_answers_by_us(wire: Wire) -> None:
    config = m.ReplicateConfig()
    assert wire("ServiceReady") == "2.0.0"
    assert wire("GetStorageConfig").root == ""
    segment = m.Segment(b"s" * 16, "127.0.0.1:7", 1 << 32, 64 << 20, "127.0.0.1:7", "tcp")
    assert wire("MountSegment", segment, CLIENT) in (Code.OK, Code.SEGMENT_EXISTS)
    ping = wire("Ping", CLIENT)
    assert isinstance(ping, m.Ping)
    assert ping.status in (m.ClientStatus.OK, m.ClientStatus.NEED_REMOUNT)
    wire("ReMountSegment", [segment], CLIENT)
    assert wire("FetchTasks", CLIENT, 16) == []

    (place,) = wire("PutStart", CLIENT, "k", 1000, config, "default")
    assert isinstance(place.place, m.Memory)
    assert (place.place.size, place.place.endpoint, place.status) == (1000, "127.0.0.1:7", m.Status.PROCESSING)
    kind = m.Kind.MEMORY if wire.generation == "0.3.9" else m.Kind.ALL
    assert wire("PutEnd", CLIENT, m.ObjectMeta("k", 77), kind, "default") is Code.OK
    assert wire("ExistKey", "k", "default") is True
    found = wire("GetReplicaList", "k", "default")
    assert isinstance(found, m.Replicas)
    assert found.replicas[0].place == place.place
    assert found.replicas[0].status == m.Status.COMPLETE
    assert found.checksum == (77 if wire.generation == NEWEST else None)
    assert wire("GetReplicaList", "none", "default") is Code.NOT_FOUND

    keys = [f"k{number}" for number in range(300)]
    assert [type(each) for each in wire("BatchPutStart", CLIENT, keys, [10] * 300, config, "default")] == [list] * 300
    metas = [m.ObjectMeta(key) for key in keys]
    assert wire("BatchPutEnd", CLIENT, metas, m.Kind.ALL, "default") == [Code.OK] * 300
    assert wire("BatchExistKey", [*keys, "none"], "default") == [True] * 300 + [False]
    many = wire("BatchGetReplicaList", [*keys, "none"], "default")
    assert [type(each) for each in many] == [m.Replicas] * 300 + [Code]
    by_regex = wire("GetReplicaListByRegex", "^k1[0-9]$", "default")
    assert sorted(by_regex) == [f"k1{digit}" for digit in range(10)]
    assert wire("BatchQueryIp", [CLIENT]) == {CLIENT: ["127.0.0.1"]}

    assert wire("PutStart", CLIENT, "r", 10, config, "default")
    assert wire("PutRevoke", CLIENT, "r", kind, "default") is Code.OK
    assert wire("Remove", "k", False, "default") is Code.LEASED
    assert wire("RemoveByRegex", "^none$", False, "default") == 0
    assert wire("RemoveAll", True, "default") == 301
    assert wire("QueryTask", b"t" * 16) is Code.NO_TASK
    assert wire("CreateCopyTask", "none", "default", ["127.0.0.1:7"]) is Code.NOT_FOUND
    assert wire("UnmountSegment", segment.id, CLIENT) is Code.OK
