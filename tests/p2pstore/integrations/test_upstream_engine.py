"""Upstream's engine class over ours: with itself and with the real one, in processes, by pointers."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import engine as ours
from p2pstore.integrations.upstream_engine import FAILED, TransferEngine, TransferNotify, TransferOpcode
from p2pstore.kv.client import device_memory
from tests.interop.test_transfer import Upstream
from tests.interop.wheels import Wheel, wheel
from tests.p2pstore.kv.client.test_device_memory import FIRST, Drawer
from tests.ports import closed_port

SIZE = 1 << 20
OURS = Wheel("ours", {"ENGINE_MODULE": "p2pstore.integrations.upstream_engine"}, Path())


class Side:
    """An engine in this process, with registered memory."""

    def __init__(self) -> None:
        self.engine = TransferEngine()
        assert self.engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0, self.engine.last_error
        self.data = (ctypes.c_ubyte * SIZE)()
        self.at = ctypes.addressof(self.data)
        assert self.engine.batch_register_memory([self.at], [SIZE]) == 0
        self.name = f"127.0.0.1:{self.engine.get_rpc_port()}"


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    one, other = Side(), Side()
    yield one, other
    del one.engine, other.engine
    gc.collect()


def test_pieces_go_to_pointers(sides: tuple[Side, Side]) -> None:
    one, other = sides
    one.data[:] = os.urandom(SIZE)
    pieces = [(0, 500_000, 1000), (5000, 0, 70_000), (300_000, 200_000, 1)]
    code = one.engine.batch_transfer_sync_write(
        other.name, [one.at + a for a, _, _ in pieces], [other.at + b for _, b, _ in pieces], [n for _, _, n in pieces]
    )
    assert code == 0, one.engine.last_error
    for source, to, length in pieces:
        assert bytes(other.data[to : to + length]) == bytes(one.data[source : source + length])
    assert other.engine.transfer_sync_read(one.name, other.at, one.at, SIZE) == 0
    assert bytes(other.data) == bytes(one.data)
    assert one.engine.get_first_buffer_address(other.name) == other.at


def test_begun_and_asked_for(sides: tuple[Side, Side]) -> None:
    one, other = sides
    one.data[:] = os.urandom(SIZE)
    number = one.engine.batch_transfer_async_write(other.name, [one.at], [other.at], [SIZE])
    assert number > 0
    assert one.engine.get_batch_transfer_status([number]) == 0
    assert bytes(other.data) == bytes(one.data)
    assert one.engine.get_batch_transfer_status([number]) == FAILED, "each is asked for once"
    number = one.engine.transfer_submit_write(other.name, one.at, other.at, 10)
    while (state := one.engine.transfer_check_status(number)) == 0:
        pass
    assert state == 1
    assert one.engine.transfer_check_status(number) == FAILED


def test_messages(sides: tuple[Side, Side]) -> None:
    one, other = sides
    note = TransferNotify("name", "text")
    assert one.engine.transfer_sync(other.name, one.at, other.at, 1, TransferOpcode.Write, note) == 0
    assert [(each.name, each.msg) for each in other.engine.get_notifies()] == [("name", "text")]
    assert one.engine.send_probe(other.name) == 0


def test_own_buffers(sides: tuple[Side, Side]) -> None:
    one, other = sides
    at = one.engine.allocate_managed_buffer(100)
    assert at
    assert one.engine.write_bytes_to_buffer(at, b"hello", 5) == 0
    assert other.engine.transfer_sync_read(one.name, other.at, at, 5) == 0
    assert other.engine.read_bytes_from_buffer(other.at, 5) == b"hello"
    assert one.engine.free_managed_buffer(at, 100) == 0
    assert other.engine.transfer_sync_read(one.name, other.at, at, 5) == FAILED


def test_memory_that_a_transfer_still_uses_stays(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = sides
    at = one.engine.allocate_managed_buffer(100)
    with monkeypatch.context() as patched:
        patched.setattr(ours.TransferEngine, "unregister_memory_batch", lambda *_: False)
        assert one.engine.free_managed_buffer(at, 100) == FAILED
    assert "do not free it" in one.engine.last_error
    assert at in one.engine._own


def test_what_goes_wrong_is_a_number_and_said(sides: tuple[Side, Side]) -> None:
    one, other = sides
    assert one.engine.transfer_sync_write(other.name, one.at, other.at + SIZE, 1) == FAILED
    assert one.engine.last_error
    assert one.engine.transfer_sync_write(f"127.0.0.1:{closed_port()}", one.at, other.at, 1) == FAILED
    assert one.engine.transfer_sync_write(other.name, one.at, other.at, 1) == 0
    assert one.engine.register_memory(one.at + 5, 10) == FAILED
    assert "something is registered already" in one.engine.last_error
    assert one.engine.register_memory(0, 10) == FAILED
    assert one.engine.batch_register_memory([1, 2], [3]) == FAILED
    assert one.engine.unregister_memory(12345) == FAILED
    assert one.engine.batch_transfer_sync_write(other.name, [one.at], [], [1]) == FAILED
    assert one.engine.batch_unregister_memory([one.at, one.at]) == FAILED
    assert one.engine.unregister_memory(one.at) == 0
    assert one.engine.register_memory(one.at, SIZE) == 0
    fresh = TransferEngine()
    assert (fresh.get_rpc_port(), fresh.register_memory(one.at, 1)) == (0, FAILED)
    assert fresh.initialize("127.0.0.1", "P2PHANDSHAKE", "carrier pigeons", "") == FAILED


def test_a_gpus_memory_is_refused(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as if it were the host's it would end the process."""
    monkeypatch.setattr(device_memory, "_driver", Drawer())
    one, _ = sides
    assert one.engine.register_memory(FIRST, 10) == FAILED
    assert "it is a GPU's memory" in one.engine.last_error


@pytest.mark.parametrize(("writer", "reader"), [("ours", "newest"), ("newest", "ours"), ("ours", "ours")])
def test_beside_the_real_one(writer: str, reader: str) -> None:
    wheels = [OURS if name == "ours" else wheel(name) for name in (writer, reader)]  # both, before one of them runs
    one, other = (Upstream(each, "P2PHANDSHAKE", 2 << 20) for each in wheels)
    try:
        one("fill", seed=1, at=0, length=SIZE)
        pieces = [(other.address + 1000 * n, 7000 * n, 900) for n in range(50)]
        assert one("batch", opcode="write", segment=other.segment, pieces=pieces) == {"code": 0}
        whole = hashlib.shake_256(b"1").digest(SIZE)
        for n in range(50):
            expected = hashlib.sha256(whole[7000 * n : 7000 * n + 900]).hexdigest()
            assert other("hash", at=1000 * n, length=900) == {"sha256": expected}
        other("fill", seed=2, at=0, length=SIZE)
        read = one("read", segment=other.segment, address=other.address, at=0, length=SIZE)
        assert read == {"code": 0, "sha256": hashlib.sha256(hashlib.shake_256(b"2").digest(SIZE)).hexdigest()}
        assert one("probe", segment=other.segment) == {"code": 0}
    finally:
        one.close()
        other.close()
