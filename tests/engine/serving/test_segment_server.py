"""Two engines in one process bring bytes from one to the other."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import RangeRefused, TransportUnavailable, UsageError
from engine.files.stamps import FileStamp
from engine.memory.buffers import FilesBuffer, MemoryBuffer
from engine.memory.file_spans import FileSpan
from engine.net.handshake_client import fetch_descriptor
from engine.protocol.key import new_key
from engine.serving import tcp_server
from engine.serving.segment_server import SegmentServer
from engine.transports.mock import MockTransport


def files(directory: Path, sizes: list[int]) -> tuple[FilesBuffer, bytes]:
    rng = random.Random(3)
    spans, whole = [], b""
    for number, size in enumerate(sizes):
        path = directory / str(number)
        path.write_bytes(rng.randbytes(size))
        whole += path.read_bytes()
        spans.append(FileSpan(str(path), size, FileStamp.of(path.stat())))
    return FilesBuffer("files", spans), whole


@pytest.mark.parametrize("transport", ["tcp", "local"])
def test_a_directory_travels(tmp_path: Path, transport: str) -> None:
    with SegmentServer(local_socket=tmp_path / "s" / "local.sock") as source, SegmentServer() as other:
        buffer, whole = files(tmp_path, [0, 3_000_000, 1, 0, 70_000])
        address = source.register(buffer)
        got = bytearray(len(whole))
        other.read(source.address_of_self(), address, memoryview(got), transport)
        assert got == whole
        counter = source.bytes_sent if transport == "tcp" else source.bytes_granted
        deadline = time.monotonic() + 60
        while counter != len(whole) and time.monotonic() < deadline:  # it moves after the last byte has left
            time.sleep(0.02)
            counter = source.bytes_sent if transport == "tcp" else source.bytes_granted
        assert counter == len(whole)
        piece = bytearray(10)
        other.read(source.address_of_self(), address + 2_999_995, memoryview(piece), transport)
        assert piece == whole[2_999_995:3_000_005]
        assert source.unregister(address, timeout=60)
        with pytest.raises(RangeRefused):
            other.read(source.address_of_self(), address, memoryview(piece), transport)


def test_memory_has_no_descriptor(tmp_path: Path) -> None:
    with SegmentServer(local_socket=tmp_path / "s" / "local.sock") as source:
        address = source.register(MemoryBuffer("m", b"abc"))
        with pytest.raises(TransportUnavailable):
            source.read(source.address_of_self(), address, memoryview(bytearray(3)), "local")
        got = bytearray(3)
        source.read(source.address_of_self(), address, memoryview(got))
        assert got == b"abc"
        source.read(source.address_of_self(), address, memoryview(bytearray()))
        with pytest.raises(UsageError):
            source.read(source.address_of_self(), address, memoryview(b"abc"))


def test_replace_serves_the_new_one() -> None:
    with SegmentServer() as source:
        address = source.register(MemoryBuffer("m", b"abc"))
        source.replace(address, MemoryBuffer("m", b"xyz"))
        got = bytearray(3)
        source.read(source.address_of_self(), address, memoryview(got))
        assert got == b"xyz"


def test_the_handshake_describes_the_segment() -> None:
    with SegmentServer() as source, SegmentServer(publish_buffers=False) as discreet:
        address = source.register(MemoryBuffer("m", b"abc"))
        discreet.register(MemoryBuffer("m", b"abc"))
        found = fetch_descriptor("127.0.0.1", source.rpc_port)
        assert found.name == source.segment_name == f"127.0.0.1:{source.rpc_port}"
        assert found.tcp_data_port == source.data_port
        assert [(each.name, each.address, each.length) for each in found.buffers] == [("m", address, 3)]
        assert fetch_descriptor("127.0.0.1", discreet.rpc_port).buffers == ()


def test_what_is_advertised() -> None:
    with SegmentServer(advertise="node7.example") as source:
        peer = source.address_of_self()
        assert (peer.host, peer.segment) == ("node7.example", f"node7.example:{source.rpc_port}")
        assert (peer.host_id, peer.local_socket) == ("", "")


def test_a_taken_port_is_misuse_and_leaves_nothing_open() -> None:
    with SegmentServer() as source, pytest.raises(UsageError, match="cannot listen"):
        SegmentServer(rpc_port=source.rpc_port)


def test_transports_can_be_swapped() -> None:
    with SegmentServer() as source:
        source.use(MockTransport({100: b"abc"}))
        got = bytearray(2)
        source.read(source.address_of_self(), 101, memoryview(got), "mock")
        assert got == b"bc"
        with pytest.raises(TransportUnavailable):
            source.transport("pigeon")


def test_close_is_quick_with_peers_connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_server, "STALL_TIMEOUT", 600.0)
    source = SegmentServer(local_socket=tmp_path / "s" / "local.sock")
    source.register(MemoryBuffer("m", bytes(1 << 24)))
    channels = [source.open(source.address_of_self(), name) for name in ("tcp", "local") for _ in range(5)]
    channels[0].submit(source.descriptor().buffers[0].address, 1 << 24)  # and never received
    started = time.monotonic()
    source.close()
    source.close()
    assert time.monotonic() - started < 60, "not the time that a peer may stall"
    for channel in channels:
        channel.close()


def test_with_a_key_only_who_is_told_it_can_read() -> None:
    key = new_key()
    with SegmentServer(key=key) as owner, SegmentServer() as reader:
        address = owner.register(MemoryBuffer("secret", b"private"))
        into = bytearray(7)
        told = owner.address_of_self()
        with pytest.raises(RangeRefused):
            reader.read(replace(told, key=""), address, memoryview(into))
        assert bytes(into) == bytes(7)
        reader.read(told, address, memoryview(into))
        assert bytes(into) == b"private"
        assert key not in repr(told)
