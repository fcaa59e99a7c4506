"""Descriptors handed over on one host: paths of any length, users, refusals, and files of many runs."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import (
    PeerStalled,
    PeerUnreachable,
    RangeRefused,
    RemoteProtocolError,
    TransportUnavailable,
    UsageError,
)
from engine.files.stamps import FileStamp
from engine.memory.address_space import AddressSpace
from engine.memory.buffers import FilesBuffer, MemoryBuffer
from engine.memory.file_spans import FileSpan
from engine.net.host_id import host_id
from engine.net.sockets import set_timeouts
from engine.protocol import local_socket
from engine.protocol.local_socket import DescriptorRequest, Grant, short_path, unpack_answer
from engine.serving import descriptor_server as local_server
from engine.serving.descriptor_server import DescriptorServer
from engine.transports import local
from engine.transports.base import Channel, PeerAddress
from engine.transports.local import LocalTransport
from tests.engine.transports.sinks import Pieces


def peer(path: Path) -> PeerAddress:
    return PeerAddress("127.0.0.1:1", "127.0.0.1", 1, host_id=host_id(), local_socket=str(path))


@pytest.fixture
def space() -> AddressSpace:
    return AddressSpace()


@pytest.fixture
def server(space: AddressSpace, tmp_path: Path) -> Iterator[DescriptorServer]:
    made = DescriptorServer(space, tmp_path / ("long" * 40) / "s" / "local.sock")
    yield made
    made.close()


def files(directory: Path, sizes: list[int]) -> tuple[FilesBuffer, bytes, list[Path]]:
    rng = random.Random(3)
    paths = [directory / str(number) for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        path.write_bytes(rng.randbytes(size))
    spans = [FileSpan(str(path), path.stat().st_size, FileStamp.of(path.stat())) for path in paths]
    return FilesBuffer("files", spans), b"".join(path.read_bytes() for path in paths), paths


def test_pipelined_ranges_over_many_files(space: AddressSpace, server: DescriptorServer, tmp_path: Path) -> None:
    buffer, whole, _ = files(tmp_path, [0, 5000, 1, 0, *[10] * 200, 70_000])
    address = space.register(buffer)
    before = len(os.listdir("/proc/self/fd"))
    channel = LocalTransport().open(peer(server.path))
    ranges = [(0, 10), (4990, 2500), (5000, 2), (len(whole) - 1, 1), (0, len(whole))]
    for at, length in ranges:
        channel.submit(address + at, length)
    for at, length in ranges:
        sink = Pieces()
        channel.receive(sink)
        assert sink.got == whole[at : at + length]
    channel.close()
    buffer.close()
    deadline = time.monotonic() + 60
    while len(os.listdir("/proc/self/fd")) > before:  # until the server has noticed
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert server.path.parent.stat().st_mode & 0o777 == 0o700


def test_refusals(space: AddressSpace, server: DescriptorServer, tmp_path: Path) -> None:
    buffer, whole, paths = files(tmp_path, [100, 100])
    address = space.register(buffer)
    memory = space.register(MemoryBuffer("m", b"abc"))
    channel = LocalTransport().open(peer(server.path))
    channel.submit(address, 100)
    channel.submit(address + 1, 200)
    sink = Pieces()
    channel.receive(sink)
    assert sink.got == whole[:100]
    with pytest.raises(RangeRefused):
        channel.receive(sink)
    channel = LocalTransport().open(peer(server.path))
    channel.submit(memory, 3)
    with pytest.raises(TransportUnavailable, match="memory"):
        channel.receive(sink)
    os.truncate(paths[0], 10)
    channel = LocalTransport().open(peer(server.path))
    channel.submit(address, 1)
    with pytest.raises(RangeRefused):
        channel.receive(sink)


def test_usable_only_on_this_host(tmp_path: Path) -> None:
    here = peer(tmp_path / "s")
    transport = LocalTransport()
    assert transport.usable(here) == ""
    for other in (
        PeerAddress("s", "h", 1, host_id=host_id()),
        PeerAddress("s", "h", 1, local_socket="/x"),
        PeerAddress("s", "h", 1, host_id="elsewhere", local_socket="/x"),
    ):
        assert transport.usable(other)
        with pytest.raises(TransportUnavailable):
            transport.open(other)


def test_another_user_is_refused_on_both_sides(
    space: AddressSpace, server: DescriptorServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer, _, _ = files(tmp_path, [100])
    address = space.register(buffer)
    monkeypatch.setattr(local_server, "peer_uid", lambda sock: os.geteuid() + 1)
    channel = LocalTransport().open(peer(server.path))
    with pytest.raises(PeerUnreachable):
        _read(channel, address)
    monkeypatch.setattr(local, "peer_uid", lambda sock: os.geteuid() + 1)
    with pytest.raises(TransportUnavailable, match="another user"):
        LocalTransport().open(peer(server.path))


def _read(channel: Channel, address: int) -> None:
    channel.submit(address, 1)
    channel.receive(Pieces())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_real_other_user_is_refused(server: DescriptorServer) -> None:
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setuid(65534)
            LocalTransport().open(peer(server.path))
        except TransportUnavailable:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_nobody_there(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path / "no" / "directory"):
        with pytest.raises(PeerUnreachable):
            LocalTransport().open(peer(path))


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(space: AddressSpace, tmp_path: Path) -> None:
    path = tmp_path / "s" / "local.sock"
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left_over, short_path(path) as name:
        left_over.bind(name)
    server = DescriptorServer(space, path)
    with pytest.raises(UsageError):
        DescriptorServer(space, path)
    server.close()
    server.close()
    assert not path.exists()


def test_an_open_directory_is_refused(space: AddressSpace, tmp_path: Path) -> None:
    path = tmp_path / "s" / "local.sock"
    path.parent.mkdir()
    path.parent.chmod(0o755)
    with pytest.raises(UsageError, match="0700"):
        DescriptorServer(space, path)


def test_garbage_ends_only_its_own_connection(space: AddressSpace, server: DescriptorServer, tmp_path: Path) -> None:
    buffer, whole, _ = files(tmp_path, [100])
    address = space.register(buffer)
    for garbage in (b"x", b"[]", b"{}", b'{"address": -1, "length": 1}', b"x" * 5000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock, short_path(server.path) as name:
            sock.settimeout(60)
            sock.connect(name)
            sock.send(garbage)
            assert sock.recv(1) == b""
    channel = LocalTransport().open(peer(server.path))
    channel.submit(address, 100)
    sink = Pieces()
    channel.receive(sink)
    assert sink.got == whole
    channel.close()


def answering(tmp_path: Path, packets: list[tuple[bytes, int]]) -> tuple[Channel, socket.socket]:
    """A channel whose peer has answered with (packet, size of its file) each, and says nothing more; and the peer."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = tmp_path / "answer"
    for packet, size in packets:
        path.write_bytes(bytes(size))
        with path.open("rb") as file:
            socket.send_fds(theirs, [packet], [file.fileno()])
    set_timeouts(ours, receive=0.2, send=0.2)
    return local.LocalChannel(ours, "p", stall_timeout=0.2), theirs


@pytest.mark.parametrize(
    ("packets", "error"),
    [
        ([(Grant(0, 5, more=False).pack(), 5)], RemoteProtocolError),
        ([(Grant(0, 11, more=False).pack(), 11)], RemoteProtocolError),
        ([(Grant(0, 10, more=True).pack(), 10)], PeerStalled),
        ([(Grant(0, 10, more=False).pack(), 3)], PeerUnreachable),
        ([(b"nonsense", 1)], RemoteProtocolError),
        ([(b'{"offset": 0, "length": 0}', 1)], RemoteProtocolError),
        ([], PeerStalled),
    ],
)
def test_a_peer_that_answers_badly(tmp_path: Path, packets: list[tuple[bytes, int]], error: type[Exception]) -> None:
    channel, theirs = answering(tmp_path, packets)
    with theirs:
        channel.submit(1, 10)
        with pytest.raises(error):
            channel.receive(Pieces())


def test_an_answer_without_a_descriptor(tmp_path: Path) -> None:
    channel, theirs = answering(tmp_path, [])
    with theirs:
        theirs.send(Grant(0, 10, more=False).pack())
        channel.submit(1, 10)
        with pytest.raises(RemoteProtocolError, match="descriptor"):
            channel.receive(Pieces())


@given(st.binary(max_size=40) | st.recursive(st.integers() | st.text(), st.lists).map(lambda each: repr(each).encode()))
def test_any_packet_parses_or_blames_the_peer(packet: bytes) -> None:
    read: list[Any] = [lambda: DescriptorRequest.unpack(packet, peer="p"), lambda: unpack_answer(packet, peer="p")]
    for each in read:
        with pytest.raises(RemoteProtocolError):
            each()


def test_packets_fit() -> None:
    largest = 2**64 - 1
    for packet in (DescriptorRequest(largest, largest).pack(), Grant(largest, largest, more=False).pack()):
        assert len(packet) <= local_socket.MAX_PACKET
