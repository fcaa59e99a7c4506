"""The descriptor server where threads are refused or fail; what it hands over is tested with the local transport."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import UsageError
from engine.memory.address_space import AddressSpace
from engine.memory.buffers import FilesBuffer
from engine.memory.file_spans import FileSpan
from engine.protocol.local_socket import MAX_PACKET, DescriptorRequest, socket_of
from engine.serving.descriptor_server import DescriptorServer

DATA = b"what the descriptor leads to"


class Served:
    """A server with one file."""

    def __init__(self, room: Path) -> None:
        path = room / "file"
        path.write_bytes(DATA)
        self.space = AddressSpace()
        self.address = self.space.register(FilesBuffer("f", [FileSpan(str(path), len(DATA))]))
        self.server = DescriptorServer(self.space, room / "s" / "local.sock")

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(30)
        sock.connect(str(self.server.path))
        return sock

    def answers(self) -> None:
        with self.connect() as sock:
            sock.sendall(DescriptorRequest(self.address, len(DATA)).pack())
            _, fds, _, _ = socket.recv_fds(sock, MAX_PACKET, 1)
            assert os.pread(fds[0], 100, 0) == DATA
            os.close(fds[0])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.server.close()
    made.space.close()


def refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_peer_for_whom_there_is_no_thread_is_closed_and_the_next_one_served(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D1's sibling: the accepting thread died, and ``close`` raised."""
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with served.connect() as sock:
                assert sock.recv(1) == b""
    served.answers()
    (failure,) = served.server.failures
    assert (failure.name, failure.count, failure.error) == ("local client", 2, "RuntimeError: can't start new thread")


def test_an_error_in_the_accepting_thread_does_not_end_it(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """D1's sibling: what nobody foresaw is counted."""
    start = served.server._threads.start
    turns = iter([ValueError("unforeseen")])

    def fails_once(*args: object) -> object:
        error = next(turns, None)
        if error is not None:
            raise error
        return start(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(served.server._threads, "start", fails_once)
    with served.connect() as lost:
        assert lost.recv(1) == b""
    served.answers()
    assert [failure.name for failure in served.server.failures] == ["local accept"]


def test_a_server_that_gets_no_thread_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(UsageError, match="'local accept'"):
            Served(tmp_path)
    assert not (tmp_path / "s" / "local.sock").exists()


def test_an_abstract_name_has_no_file_and_is_free_again_when_the_server_is_closed() -> None:
    name = socket_of("10.0.0.1:15000")
    assert name != socket_of("10.0.0.1:15001")
    for _ in range(2):
        space = AddressSpace()
        server = DescriptorServer(space, name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(30)
            sock.connect(name)
            with pytest.raises(UsageError, match="cannot listen on @mooncake-segment-"):
                DescriptorServer(space, name)
            server.close()
            assert sock.recv(1) == b""
        space.close()
