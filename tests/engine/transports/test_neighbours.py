"""Memory handed over between processes of one host: who gets it, what is seen of it, and when it is let go."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.engine import RegisteredMemory, TransferEngine
from engine.memory.shared import SharedBuffer, SharedMemory
from engine.protocol import local_socket
from engine.protocol.local_socket import MAX_PACKET, Grant, socket_of
from engine.serving import descriptor_server
from engine.transports import neighbours as module
from engine.transports.neighbours import Neighbours
from tests.forking import in_child

LENGTH = 1 << 20
WAIT = 60

OWNER = """
import sys
from engine.engine import TransferEngine
from engine.memory.shared import SharedBuffer, SharedMemory
memory = SharedMemory(1 << 20)
memory.view[:5] = b"hello"
engine = TransferEngine(hand_over=True)
print(engine.segment_name, engine.register_memory(SharedBuffer("s", memory), writable=True).address, flush=True)
sys.stdin.read()
"""


class Owner:
    """An engine with shared memory."""

    def __init__(self) -> None:
        self.memory = SharedMemory(LENGTH)
        self.engine = TransferEngine(hand_over=True)
        self.offered: RegisteredMemory = self.engine.register_memory(SharedBuffer("s", self.memory), writable=True)
        self.name = self.engine.segment_name


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is slow on a slow day is no stranger, nor is one asked again at once for that."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", float(WAIT))
    monkeypatch.setattr(module, "ASK_AGAIN_SECONDS", 3600.0)


@pytest.fixture
def owner() -> Iterator[Owner]:
    made = Owner()
    yield made
    made.engine.close()


@pytest.fixture
def neighbours() -> Iterator[Neighbours]:
    made = Neighbours()
    yield made
    made.close()


def mapped() -> set[str]:
    """The mappings of shared memories that this process has."""
    return {line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:mooncake" in line}


def until(condition: object) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_memory_is_read_and_written_in_place(owner: Owner, neighbours: Neighbours) -> None:
    owner.memory.view[100:105] = b"there"
    view = neighbours.view(owner.name, owner.offered.address + 100, 5)
    assert view == b"there"
    assert view is not None
    view[:] = b"here!"
    assert owner.memory.view[100:105] == b"here!"
    assert neighbours.knows(owner.name)


def test_it_is_asked_for_once(owner: Owner, neighbours: Neighbours) -> None:
    for at in range(0, LENGTH, LENGTH // 8):
        assert neighbours.view(owner.name, owner.offered.address + at, LENGTH // 8) is not None
    until(lambda: owner.engine._server.bytes_granted >= LENGTH // 8)
    assert owner.engine._server.bytes_granted == LENGTH // 8


def test_threads_share_them(owner: Owner, neighbours: Neighbours) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(2000):
                assert neighbours.view(owner.name, owner.offered.address, 8) is not None
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert not failures


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (LENGTH - 1, 2), (LENGTH, 1), (0, LENGTH + 1)])
def test_what_is_not_wholly_in_it_is_not_there(owner: Owner, neighbours: Neighbours, offset: int, length: int) -> None:
    assert neighbours.view(owner.name, owner.offered.address, LENGTH) is not None
    assert neighbours.view(owner.name, owner.offered.address + offset, length) is None


def test_memory_that_was_not_made_to_be_shared_is_not_handed_over(owner: Owner, neighbours: Neighbours) -> None:
    private = owner.engine.register_memory(bytearray(LENGTH))
    assert neighbours.view(owner.name, private.address, 10) is None
    assert neighbours.view(owner.name, owner.offered.address, 10) is None, "it was asked again at once"
    neighbours.forget(owner.name)
    assert neighbours.view(owner.name, owner.offered.address, 10) is not None


def test_an_engine_that_hands_nothing_over_is_no_neighbour(neighbours: Neighbours) -> None:
    with TransferEngine() as engine:
        memory = engine.register_memory(SharedBuffer("s", SharedMemory(LENGTH)), writable=True)
        assert neighbours.view(engine.segment_name, memory.address, 10) is None
        assert not neighbours.knows(engine.segment_name)


def test_a_stranger_is_tried_again_later(owner: Owner, neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "socket_of", lambda _: "\0nobody listens here")
        assert neighbours.view(owner.name, owner.offered.address, 10) is None
    assert neighbours.view(owner.name, owner.offered.address, 10) is None
    neighbours._strangers[owner.name] = 0.0
    assert neighbours.view(owner.name, owner.offered.address, 10) is not None


def test_strangers_are_remembered_in_bounded_memory(neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STRANGERS", 4)
    for number in range(10):
        assert neighbours.view(f"10.0.0.{number}:1", 0, 1) is None
    assert len(neighbours._strangers) <= 4


@pytest.mark.parametrize("side", ["client", "server"])
def test_another_user_gets_nothing(
    owner: Owner, neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    where = module if side == "client" else descriptor_server
    monkeypatch.setattr(where, "peer_uid", lambda _: os.geteuid() + 1)
    assert neighbours.view(owner.name, owner.offered.address, 10) is None


@contextlib.contextmanager
def answering(name: str, answer: bytes, fds: list[int]) -> Iterator[None]:
    """A process of this host that answers one question so, and closes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(socket_of(name))
        listener.listen()

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(MAX_PACKET)
                if answer:
                    socket.send_fds(sock, [answer], fds)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(WAIT)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense",
        local_socket.pack_error("refused"),
        Grant(0, 10, more=False).pack(),
    ],
    ids=["closed", "nonsense", "refused", "no descriptor"],
)
def test_an_odd_answer_is_as_none(neighbours: Neighbours, answer: bytes) -> None:
    with answering("odd:1", answer, []):
        assert neighbours.view("odd:1", 4096, 10) is None


@pytest.mark.parametrize(
    "grant", [Grant(LENGTH, 10, more=False), Grant(1 << 40, 10, more=False), Grant(0, 9, more=False)]
)
def test_a_grant_of_something_else_is_refused(neighbours: Neighbours, grant: Grant) -> None:
    memory = SharedMemory(LENGTH)
    with answering("far:1", grant.pack(), [memory.fd]):
        assert neighbours.view("far:1", 1 << 41, 10) is None
    memory.close()


@pytest.mark.parametrize("how", ["kill", "close"])
def test_memory_is_let_go_when_its_owner_ends(neighbours: Neighbours, how: str) -> None:
    before = mapped()
    process = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        name, address = process.stdout.readline().split()
        view = neighbours.view(name, int(address), 5)
        assert view == b"hello"
        del view
        assert len(mapped() - before) == 1
        if how == "kill":
            process.send_signal(signal.SIGKILL)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(WAIT)

        def over() -> bool:
            neighbours.forget_gone()
            return not mapped() - before

        until(over)
        assert neighbours.view(name, int(address), 5) is None
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def test_an_end_is_noticed_by_the_next_use(neighbours: Neighbours) -> None:
    made = Owner()
    assert neighbours.view(made.name, made.offered.address, 5) is not None
    made.engine.close()
    until(lambda: neighbours.view(made.name, made.offered.address, 5) is None)
    assert not neighbours.knows(made.name)


def test_a_piece_that_was_lent_is_let_go_alone(owner: Owner, neighbours: Neighbours) -> None:
    lent = owner.engine.register_memory(SharedBuffer("lent", SharedMemory(LENGTH)), writable=False)
    before = mapped()
    for address in (owner.offered.address, lent.address):
        assert neighbours.view(owner.name, address, 10) is not None
    assert len(mapped() - before) == 2
    neighbours.let_go(owner.name, lent.address + LENGTH - 1)
    assert len(mapped() - before) == 1
    neighbours.let_go(owner.name, lent.address)
    neighbours.let_go("nobody:1", lent.address)
    assert neighbours.view(owner.name, owner.offered.address, 10) is not None
    assert len(mapped() - before) == 1
    assert neighbours.view(owner.name, lent.address, 10) is not None, "it is asked for again"


def test_after_close_there_are_none(owner: Owner, neighbours: Neighbours) -> None:
    assert neighbours.view(owner.name, owner.offered.address, 5) is not None
    neighbours.close()
    neighbours.close()
    assert neighbours.view(owner.name, owner.offered.address, 5) is None


def test_a_forked_child_keeps_no_connection_to_a_neighbour(owner: Owner, neighbours: Neighbours) -> None:
    assert neighbours.view(owner.name, owner.offered.address, 5) is not None
    (fd,) = [each.sock.fileno() for each in neighbours._known.values()]
    assert in_child(lambda: os.path.realpath(f"/proc/self/fd/{fd}")) == os.devnull


def test_no_name_is_left_and_a_taken_one_harms_nobody() -> None:
    with TransferEngine(hand_over=True) as first:
        name = socket_of(first.segment_name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as squatter:
        squatter.bind(name)  # the name was left behind otherwise
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("engine.serving.segment_server.socket_of", lambda _: name)
            with TransferEngine(hand_over=True) as second:
                memory = second.register_memory(bytearray(b"abc"))
                room = bytearray(3)
                second.read(room, second.open_segment(second.segment_name), memory.address)
                assert room == b"abc"
