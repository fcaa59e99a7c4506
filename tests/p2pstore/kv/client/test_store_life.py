"""A pool's client that is interrupted, closed by others, or left open at the end of its program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Closed
from p2pstore.kv.client import line, plane
from p2pstore.kv.client.store import Store
from tests.p2pstore.kv.client.conftest import MakePeer, MakeStore
from tests.p2pstore.kv.client.masters import AMaster
from tests.p2pstore.kv.client.peers import Peer, value_of

WAIT = 60
SIZE = 8 << 20


def halt(peer: Peer) -> None:
    """Let a process stand still; all its threads do when this returns."""
    peer.send(signal.SIGSTOP)
    deadline = time.monotonic() + WAIT
    tasks = Path(f"/proc/{peer.pid}/task")
    while any((each / "stat").read_text().rpartition(")")[2].split()[0] != "T" for each in tasks.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def stalled(own_master: AMaster, make_peer: MakePeer) -> Peer:
    """A client that has the value of "k", and stands still."""
    peer = make_peer(own_master.address, neighbours=False)
    assert peer("put", "k", SIZE) is True
    return peer


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls wait longer for who stands still than any interruption takes to come."""
    monkeypatch.setattr(line, "CALL_SECONDS", 10.0 * WAIT)
    monkeypatch.setattr(plane, "STALL_SECONDS", 10.0 * WAIT)


def interrupt_when(begun: Callable[[], object]) -> threading.Thread:
    """Press Ctrl-C when a call has begun, a moment later."""

    def press() -> None:
        deadline = time.monotonic() + WAIT
        while not begun() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


@pytest.mark.usefixtures("patient")
def test_ctrl_c_ends_a_get_and_the_store_can_be_used_as_before(
    own_master: AMaster, make_store: MakeStore, stalled: Peer
) -> None:
    store = make_store(own_master.address, segment_size=0, neighbours=False)
    assert store.get("k") == value_of("k", SIZE)
    halt(stalled)
    room = bytearray(SIZE)
    moved = store._client.plane.moved
    pressing = interrupt_when(lambda: store._client.plane.moved > moved)
    with pytest.raises(KeyboardInterrupt):
        store.get_into("k", room)
    pressing.join(WAIT)
    room.append(1)  # nothing holds it
    stalled.send(signal.SIGCONT)
    assert stalled("put", "k2", SIZE) is True
    assert store.get("k2") == value_of("k2", SIZE)


@pytest.mark.usefixtures("patient")
def test_ctrl_c_ends_a_call_to_a_master_that_stands_still(
    own_master: AMaster, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(own_master.address, segment_size=0)
    master = store._client.master
    call, asked = master._call, threading.Event()

    def and_tell(method: str, *args: Any, **options: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            asked.set()
        return call(method, *args, **options)

    monkeypatch.setattr(master, "_call", and_tell)
    own_master.halt()
    pressing = interrupt_when(asked.is_set)
    with pytest.raises(KeyboardInterrupt):
        store.exists("k")
    pressing.join(WAIT)
    own_master.go_on()
    deadline = time.monotonic() + WAIT
    while store.why_not:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not store.exists("k")


def test_a_close_ends_a_transfer_under_way_and_lets_go_of_the_memory(
    own_master: AMaster, make_store: MakeStore, stalled: Peer
) -> None:
    store = make_store(own_master.address, segment_size=0, neighbours=False)
    assert store.get("k") == value_of("k", SIZE)
    halt(stalled)
    room = bytearray(SIZE)
    outcome: list[BaseException] = []

    def get() -> None:
        try:
            store.get_into("k", room)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=get)
    thread.start()
    time.sleep(0.2)
    store.close()
    thread.join(WAIT)
    assert [type(each) for each in outcome] == [Closed]
    outcome[0].__traceback__ = None
    room.append(1)


def test_closing_by_several_threads_is_harmless(store: Store) -> None:
    closers = [threading.Thread(target=store.close) for _ in range(5)]
    for each in closers:
        each.start()
    for each in closers:
        each.join(WAIT)
    assert not any(each.is_alive() for each in closers)


PROGRAM = """
import signal, sys
from p2pstore.kv import Store
store = Store(sys.argv[1], segment_size=1 << 20)
store.put("k", b"value")
how = sys.argv[2]
if how == "a handler":
    signal.signal(signal.SIGTERM, lambda *_: (store.close(), sys.exit(0)))
print("ready", flush=True)
if how == "a handler":
    while True:
        store.get("k")
sys.stdin.readline()
if how == "an error":
    raise SystemExit(3)
"""


@pytest.mark.parametrize("how", ["its last line", "an error", "a handler", "a kill"])
def test_a_program_ends_and_its_memory_leaves_the_pool(own_master: AMaster, make_store: MakeStore, how: str) -> None:
    other = make_store(own_master.address, segment_size=0)
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, own_master.address, how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        assert other.get("k") == b"value"
        if how == "a handler":
            program.send_signal(signal.SIGTERM)
        elif how == "a kill":
            program.kill()
        program.communicate(input="\n" if how != "a kill" else None, timeout=WAIT)
        assert program.returncode == {"its last line": 0, "an error": 3, "a handler": 0, "a kill": -9}[how]
    finally:
        program.kill()
        program.communicate()
    if how == "a kill":  # then the master must notice by itself
        deadline = time.monotonic() + WAIT
        while other.exists("k"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert not other.exists("k")
