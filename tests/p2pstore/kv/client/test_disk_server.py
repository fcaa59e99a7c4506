"""What a client answers to others about its disk: what is ready, for how long, and what is refused."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.metadata.handshake import URL as P2PHANDSHAKE
from engine.rpc import disk_calls, framing
from engine.rpc.codes import Code
from engine.rpc.disk_calls import Done, Ready, Wanted
from engine.rpc.framing import Splitter
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.verbs.fake_verbs import Fabric
from p2pstore.kv.client import disk_server
from p2pstore.kv.client.disk_reading import DiskReader, Want
from p2pstore.kv.client.disk_server import LEASE_SECONDS, DiskServer
from p2pstore.kv.client.plane import DataPlane
from tests.engine.transports.rdma.conftest import fabric, open_nics
from tests.ports import closed_port

__all__ = ["fabric", "open_nics"]

VALUES = {"default\0a": b"a" * 1000, "default\0b": b"b" * 200_000}
WAIT = 30.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def read_into(name: str, view: memoryview) -> bool:
    view[:] = VALUES[name]
    return True


@pytest.fixture
def plane() -> Iterator[DataPlane]:
    made = DataPlane("127.0.0.1", P2PHANDSHAKE, protocol="tcp", devices="", neighbours=False)
    yield made
    made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(plane: DataPlane, clock: Clock) -> Iterator[DiskServer]:
    sizes = {name: len(value) for name, value in VALUES.items()}
    made = DiskServer("127.0.0.1", plane, read_into, sizes.get, clock=clock)
    yield made
    made.close()
    made.close()
    assert not made.failures
    assert not made.lying_ready


@pytest.fixture
def caller(server: DiskServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as made:
        yield made


def asked(caller: socket.socket, call: Wanted | Done) -> Ready | Code:
    caller.sendall(disk_calls.ask(1, call))
    splitter = Splitter(peer="the server", answers=True)
    while True:
        data = caller.recv(1 << 16)
        assert data
        for answer in splitter.answers(data):
            return disk_calls.told(answer, "the server")


def wanted(*names: str) -> Wanted:
    return Wanted(list(names), [len(VALUES[name]) for name in names])


def mapped() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:mooncake")


def until(server: DiskServer, ready: int) -> None:
    end = time.monotonic() + WAIT
    while server.lying_ready != ready:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_over_rdma_what_lies_on_a_disk_comes_over_the_device(open_nics: Callable[..., Nics], fabric: Fabric) -> None:
    reader, owner = (
        DataPlane("127.0.0.1", P2PHANDSHAKE, protocol="rdma", devices="", neighbours=False, nics=open_nics(name))
        for name in ("a0", "b0")
    )
    sizes = {name: len(value) for name, value in VALUES.items()}
    server = DiskServer("127.0.0.1", owner, read_into, sizes.get)
    rooms = {name: memoryview(bytearray(len(value))) for name, value in VALUES.items()}
    part = memoryview(bytearray(1000))
    place = f"127.0.0.1:{server.port}"
    wants = [Want(name, place, len(room), [(0, room)]) for name, room in rooms.items()]
    wants.append(Want("default\0b", place, 200_000, [(199_000, part)]))
    disks = DiskReader(reader)
    assert disks.read(wants) == ["", "", ""]
    assert {name: bytes(room) for name, room in rooms.items()} == VALUES
    assert part == b"b" * 1000
    assert disks.fetched == 3
    assert fabric.moved == {("a0", "b0"): 202_000}
    server.close()
    reader.close()
    owner.close()


def test_owners_that_know_no_tenants_are_asked_by_key_of_the_default_one_alone() -> None:
    """As clients before 0.3.12 call values on their disks."""
    owner, reader = (
        DataPlane("127.0.0.1", P2PHANDSHAKE, protocol="tcp", devices="", neighbours=False) for _ in range(2)
    )
    values = {"a": b"a" * 10, "b": b"b" * 20}
    asked: list[str] = []

    def size(name: str) -> int | None:
        asked.append(name)
        return len(values[name]) if name in values else None

    def fill(name: str, view: memoryview) -> bool:
        view[:] = values[name]
        return True

    server = DiskServer("127.0.0.1", owner, fill, size)
    disks = DiskReader(reader)
    place = f"127.0.0.1:{server.port}"
    for expected in (["default\0a", "a"], ["a"]):
        asked.clear()
        room = memoryview(bytearray(10))
        assert disks.read([Want("default\0a", place, 10, [(0, room)])]) == [""]
        assert bytes(room) == values["a"]
        assert asked[: len(expected)] == expected
    (why,) = disks.read([Want("red\0b", place, 20, [(0, memoryview(bytearray(20)))])])
    assert why, "another tenant's value must not be taken for it"
    values["default\0c"] = b"c" * 5  # a newer one has its place
    room = memoryview(bytearray(5))
    assert disks.read([Want("default\0c", place, 5, [(0, room)])]) == [""]
    assert bytes(room) == b"c" * 5
    for each in (server, owner, reader):
        each.close()


def test_values_lie_ready_until_they_are_let_go_of(server: DiskServer, caller: socket.socket, plane: DataPlane) -> None:
    ready = asked(caller, wanted(*VALUES))
    assert isinstance(ready, Ready)
    assert ready.endpoint == plane.endpoint
    assert server.lying_ready == 201_000
    assert len(ready.addresses) == len(VALUES)
    caller.sendall(disk_calls.ask(2, Done(ready.batch)))
    until(server, 0)


def test_what_nobody_lets_go_of_goes_with_its_time(server: DiskServer, caller: socket.socket, clock: Clock) -> None:
    assert isinstance(asked(caller, wanted("default\0a")), Ready)
    clock.now = LEASE_SECONDS
    until(server, 0)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (Wanted(["default\0a"], [999]), Code.NOT_FOUND),
        (Wanted(["default\0a", "none"], [1000, 1]), Code.NOT_FOUND),
        (Wanted(["default\0a"], []), Code.BAD_PARAMS),
        (Wanted([], []), Code.BAD_PARAMS),
        (Wanted(["default\0a"], [-1000]), Code.BAD_PARAMS),
    ],
)
def test_what_is_not_there_or_makes_no_sense_is_refused(
    server: DiskServer, caller: socket.socket, call: Wanted, code: Code
) -> None:
    assert asked(caller, call) is code
    assert server.lying_ready == 0


def test_what_cannot_be_read_leaves_nothing_behind(
    server: DiskServer, caller: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_read_into", lambda *_: False)
    assert asked(caller, wanted("default\0a", "default\0b")) is Code.NOT_FOUND
    assert server.lying_ready == 0


def test_no_more_lies_ready_than_was_allowed(
    server: DiskServer, caller: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_server, "MAX_READY", 201_000)
    assert isinstance(asked(caller, wanted("default\0b")), Ready)
    assert isinstance(asked(caller, wanted("default\0a")), Ready)
    assert asked(caller, wanted("default\0a")) is Code.BUFFER_OVERFLOW
    assert server.lying_ready == 201_000


def test_garbage_ends_the_connection_and_the_next_one_is_served(server: DiskServer, caller: socket.socket) -> None:
    caller.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert caller.recv(100) == b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as other:
        other.sendall(framing.request(1, 12345, b""))
        splitter = Splitter(peer="the server", answers=True)
        (answer,) = splitter.answers(other.recv(1 << 16))
        assert answer.error == disk_calls.NO_SUCH_CALL
        assert isinstance(asked(other, wanted("default\0a")), Ready)


def test_more_callers_than_are_served_are_turned_away(
    server: DiskServer, caller: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(asked(caller, wanted("default\0a")), Ready)  # it is being served
    monkeypatch.setattr(disk_server, "MAX_CALLERS", 1)
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as other:
        assert other.recv(1) == b""
    assert isinstance(asked(caller, wanted("default\0a")), Ready)


# -- the other side


def test_a_reader_brings_many_and_says_which_are_not_there(server: DiskServer, plane: DataPlane) -> None:
    endpoint = f"127.0.0.1:{server.port}"
    rooms = {name: bytearray(size) for name, size in [("default\0a", 1000), ("none", 5), ("default\0b", 200_000)]}
    with_reader = DataPlane("127.0.0.1", P2PHANDSHAKE, protocol="tcp", devices="", neighbours=False)
    try:
        reader = DiskReader(with_reader)
        want = [Want(name, endpoint, len(room), [(0, memoryview(room))]) for name, room in rooms.items()]
        why = reader.read(want)
    finally:
        with_reader.close()
    assert [bool(each) for each in why] == [False, True, False]
    assert f"the disk of {endpoint}: " in why[1]
    for name, value in VALUES.items():
        assert rooms[name] == value
    until(server, 0)


def test_a_reader_on_this_host_keeps_nothing_of_what_was_lent() -> None:
    size = len(VALUES["default\0b"])
    owner = DataPlane("127.0.0.1", P2PHANDSHAKE, protocol="tcp", devices="")
    reading = DataPlane("127.0.0.1", P2PHANDSHAKE, protocol="tcp", devices="")
    server = DiskServer("127.0.0.1", owner, read_into, {"default\0b": size}.get)
    try:
        reader = DiskReader(reading)
        before = mapped()
        for times in range(1, 4):
            room = bytearray(size)
            want = Want("default\0b", f"127.0.0.1:{server.port}", size, [(0, memoryview(room))])
            assert reader.read([want]) == [""]
            assert room == VALUES["default\0b"]
            assert reading.copied == times * size, "it did not come by way of shared memory"
        end = time.monotonic() + WAIT
        while mapped() != before:  # the owner lets go when it has heard that all came
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        server.close()
        reading.close()
        owner.close()


@pytest.mark.parametrize("endpoint", ["", "no port", "127.0.0.1:CLOSED"])
def test_an_owner_that_is_not_there_is_named(plane: DataPlane, endpoint: str) -> None:
    endpoint = endpoint.replace("CLOSED", str(closed_port()))
    (why,) = DiskReader(plane).read([Want("x", endpoint, 3, [(0, memoryview(bytearray(3)))])])
    assert why.startswith(f"the disk of {endpoint}: ")
