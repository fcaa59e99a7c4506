"""Copies end late, and nothing is used before they have: no buffer, no memory, no stream."""

from __future__ import annotations

import ctypes
import itertools
import sys
import threading
from typing import Any

import pytest

from engine.cuda import load
from engine.cuda.copies import PIECE_BYTES, Copies, FromHere, wanted
from engine.cuda.device_memory import DeviceMemory, device_memory
from engine.cuda.fake_driver import FakeDriver
from engine.errors import GpuFailed
from tests.engine.cuda.gpus import WAIT, Array, Tensor, fake, nothing_left, torch, without_torch
from tests.p2pstore.samples import content

MIB = 1 << 20


def lent(source: Any) -> DeviceMemory:
    found = device_memory(source, "it")
    assert isinstance(found, DeviceMemory)
    return found


def put(copies: Copies, memory: DeviceMemory, data: bytes, offset: int = 0) -> None:
    buffer = copies.take(len(data), memory.device, wanted)
    buffer.view[: len(data)] = data
    copies.put(buffer, [FromHere(buffer.address, memory, offset, len(data))])


def test_what_is_put_is_there_when_it_is_settled(gpu: FakeDriver) -> None:
    tensor, data = Tensor(gpu, bytes(3 * MIB)), content(3 * MIB)
    memory, copies = lent(tensor), Copies(load.cuda())
    gpu.pause()
    for offset in range(0, len(data), MIB):
        put(copies, memory, data[offset : offset + MIB], offset)
    assert not copies.settle(0.01)
    assert tensor.content == bytes(3 * MIB)
    gpu.resume()
    assert copies.settle(WAIT)
    assert tensor.content == data
    copies.close()
    memory.release()
    nothing_left(gpu)


def test_buffers_are_not_filled_again_before_they_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    without_torch(monkeypatch)
    with fake(delay=0.003) as gpu:
        data = content(24 * MIB)
        tensor = Tensor(gpu, bytes(len(data)))
        memory, cuda = lent(tensor), load.cuda()
        cuda.arriving._limit = 3 * MIB
        copies = Copies(cuda)
        for offset in range(0, len(data), MIB):
            put(copies, memory, data[offset : offset + MIB], offset)
        assert copies.settle(WAIT)
        assert tensor.content == data
        assert gpu.most_pinned_bytes <= 3 * MIB
        copies.close()
        memory.release()
        nothing_left(gpu)


def test_copies_come_after_what_the_callers_stream_has_to_do(gpu: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a kernel that was started before would write over what came."""
    stream = gpu.new_stream()
    monkeypatch.setitem(sys.modules, "torch", torch(stream))
    tensor = Tensor(gpu, bytes(MIB))
    gpu.pause()
    for _ in range(20):
        gpu.write(tensor.address, b"old " * (MIB // 4), stream)
    memory, copies = lent(tensor), Copies(load.cuda())
    put(copies, memory, b"new " * (MIB // 4))
    gpu.resume()
    assert copies.settle(WAIT)
    assert tensor.content[:8] == b"new new "
    copies.close()
    memory.release()
    with gpu.on(0):
        gpu.end_stream(stream)
    nothing_left(gpu)


def test_what_goes_out_comes_after_it_too(gpu: FakeDriver) -> None:
    stream = gpu.new_stream()
    array = Array(gpu, b"old!", stream=stream)
    gpu.pause()
    gpu.write(array.address, b"new!", stream)
    memory, copies = lent(array), Copies(load.cuda())
    gpu.resume()
    assert [bytes(piece) for piece in copies.pieces(memory, 0, 4)] == [b"new!"]
    copies.close()
    memory.release()
    with gpu.on(0):
        gpu.end_stream(stream)
    nothing_left(gpu)


@pytest.mark.parametrize("length", [1, PIECE_BYTES - 1, PIECE_BYTES, 5 * PIECE_BYTES + 3])
def test_pieces_are_the_memory(gpu: FakeDriver, length: int) -> None:
    data = content(length + 10)
    array = Array(gpu, data)
    memory, copies = lent(array), Copies(load.cuda())
    pieces = [bytes(piece) for piece in copies.pieces(memory, 7, length)]
    assert b"".join(pieces) == data[7 : 7 + length]
    assert {len(piece) for piece in pieces[:-1]} <= {PIECE_BYTES}
    some = copies.pieces(memory, 0, length)
    next(some)
    some.close()
    copies.close()
    memory.release()
    nothing_left(gpu)


def test_the_next_piece_is_copied_while_one_is_used_and_waited_for_in_the_end(gpu: FakeDriver) -> None:
    """A buffer of which the copy goes on would be filled under whoever has it next."""
    memory, copies = lent(Array(gpu, content(3 * PIECE_BYTES), stream=None)), Copies(load.cuda())
    gpu.pause()
    gpu.step(2)  # the first copy, and its event
    pieces = copies.pieces(memory, 0, 3 * PIECE_BYTES)
    assert bytes(next(pieces)) == content(3 * PIECE_BYTES)[:PIECE_BYTES]
    assert gpu.open["events"] == 1, "the second is under way"
    ended = threading.Event()

    def end() -> None:
        pieces.close()
        ended.set()

    thread = threading.Thread(target=end)
    thread.start()
    assert not ended.wait(0.05)
    gpu.resume()
    assert ended.wait(WAIT)
    thread.join(WAIT)
    copies.close()
    memory.release()
    nothing_left(gpu)


def test_many_threads_read_at_once() -> None:
    with fake(2, delay=0.0005) as gpu:
        data = [content(6 * MIB, number) for number in range(2)]
        memories = [lent(Array(gpu, each, device=number)) for number, each in enumerate(data)]
        copies = Copies(load.cuda())
        load.cuda().leaving._limit = 3 * MIB
        wrong: list[int] = []

        def read(number: int) -> None:
            gpu_of = number % 2
            found = b"".join(bytes(piece) for piece in copies.pieces(memories[gpu_of], 0, 6 * MIB))
            if found != data[gpu_of]:
                wrong.append(number)

        threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
            assert not thread.is_alive()
        assert wrong == []
        assert gpu.most_pinned_bytes <= 3 * MIB
        copies.close()
        for memory in memories:
            memory.release()
        nothing_left(gpu)


def test_it_reads_back_what_was_put_before(gpu: FakeDriver) -> None:
    tensor = Tensor(gpu, bytes(100))
    memory, cuda = lent(tensor), load.cuda()
    copies = Copies(cuda)
    put(copies, memory, b"abc", 50)
    room = copies.take(100, 0, wanted)
    copies.fetch(memory, 49, room.address, 5, wanted)
    assert bytes(room.view[:5]) == b"\0abc\0"
    copies.give(room)
    copies.close()
    memory.release()
    nothing_left(gpu)


def test_a_wait_that_is_given_up_ends_after_the_copy(gpu: FakeDriver) -> None:
    """What is copied to nobody waits for would be written into somebody else's buffer."""
    memory, copies = lent(Tensor(gpu, b"abcd")), Copies(load.cuda())
    room = copies.take(4, 0, wanted)
    gpu.pause()
    timer = threading.Timer(0.05, gpu.resume)

    def check() -> None:
        timer.start()  # so the copy goes on after it was given up, however slow the day
        raise InterruptedError

    with pytest.raises(InterruptedError):
        copies.fetch(memory, 0, room.address, 4, check)
    assert bytes(room.view[:4]) == b"abcd"
    timer.join(WAIT)
    copies.give(room)
    copies.close()
    memory.release()
    nothing_left(gpu)


@pytest.mark.parametrize("call", ["event", "to_device", "stream", "wait"])
def test_what_cannot_be_begun_leaves_nothing(gpu: FakeDriver, call: str) -> None:
    memory, copies = lent(Tensor(gpu, bytes(100))), Copies(load.cuda())
    gpu.refuse(call)
    with pytest.raises(GpuFailed, match="OUT_OF_MEMORY"):
        put(copies, memory, b"abc")
    put(copies, memory, b"abc")
    assert copies.settle(WAIT)
    copies.close()
    memory.release()
    nothing_left(gpu)


def test_a_buffer_that_may_still_be_copied_from_is_used_again_when_all_is_over(gpu: FakeDriver) -> None:
    """And of the event that would have told when it is free nothing is left."""
    memory, copies = lent(Array(gpu, bytes(2 * MIB), stream=None)), Copies(load.cuda())
    gpu.refuse("record")
    with pytest.raises(GpuFailed, match="cuEventRecord failed with CUDA_ERROR_OUT_OF_MEMORY"):
        put(copies, memory, content(MIB))
    assert gpu.open["events"] == 0
    put(copies, memory, content(MIB, 2), MIB)
    assert gpu.most_pinned_bytes == 2 * MIB
    assert copies.settle(WAIT)
    copies.close()
    memory.release()
    nothing_left(gpu)


@pytest.mark.parametrize("call", ["event", "to_host", "record"])
def test_what_cannot_be_read_leaves_nothing(gpu: FakeDriver, call: str) -> None:
    memory, copies = lent(Array(gpu, content(3 * PIECE_BYTES), stream=None)), Copies(load.cuda())
    gpu.refuse(call)
    with pytest.raises(GpuFailed, match="OUT_OF_MEMORY"):
        list(copies.pieces(memory, 0, len(memory)))
    assert len(list(copies.pieces(memory, 0, len(memory)))) == 3
    copies.close()
    memory.release()
    nothing_left(gpu)


def test_what_went_wrong_later_is_told_when_it_is_settled(gpu: FakeDriver) -> None:
    tensor = Tensor(gpu, bytes(100))
    memory, copies = lent(tensor), Copies(load.cuda())
    gpu.pause()
    put(copies, memory, b"abc")
    gpu.free(tensor.address)
    gpu.resume()
    with pytest.raises(GpuFailed, match="ILLEGAL_ADDRESS"):
        copies.settle(WAIT)
    copies.close()  # neither raises nor waits
    memory.release()


def test_a_broken_gpu_does_not_hold_up_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    without_torch(monkeypatch)
    with fake(2) as gpu:
        tensors = [Tensor(gpu, bytes(10), device=number) for number in range(2)]
        memories, copies = [lent(each) for each in tensors], Copies(load.cuda())
        put(copies, memories[0], b"abc")
        gpu.break_down(0)
        with pytest.raises(GpuFailed, match="GPU 0"):
            put(copies, memories[0], b"abc")
        put(copies, memories[1], b"abc")
        with pytest.raises(GpuFailed, match="GPU 0"):
            copies.settle(WAIT)
        copies.close()
        assert tensors[1].content == b"abc" + bytes(7)
        for memory in memories:
            memory.release()


def test_the_end_waits_for_copies(gpu: FakeDriver) -> None:
    tensor = Tensor(gpu, bytes(10))
    memory, copies = lent(tensor), Copies(load.cuda())
    gpu.pause()
    put(copies, memory, b"abc")
    ended = threading.Event()

    def end() -> None:
        copies.close()
        ended.set()

    thread = threading.Thread(target=end)
    thread.start()
    assert not ended.wait(0.05)
    assert tensor.content == bytes(10)
    gpu.resume()
    assert ended.wait(WAIT)
    thread.join(WAIT)
    assert tensor.content[:3] == b"abc"
    memory.release()
    nothing_left(gpu)


def test_addresses_of_a_gpu_are_nobodys_here(gpu: FakeDriver) -> None:
    """So that a test which reads them without a copy ends at once."""
    starts = [gpu.allocate(bytes(10)) for _ in range(3)]
    assert all(b - a >= 10 for a, b in itertools.pairwise(starts))
    mine = ctypes.addressof(ctypes.c_int())
    assert all(mine < start for start in starts)
