"""Memory of GPUs is received into and served by a store, on the fake GPU, which does all copies late."""

from __future__ import annotations

import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.cuda import load
from engine.cuda.fake_driver import FakeDriver
from p2pstore import P2PStore
from p2pstore.errors import ChunkMismatch, GpuFailed, GpuUnavailable, MooncakeError, ObjectNotFound, UsageError
from tests.engine.cuda.gpus import WAIT, Array, Immutable, OverDLPack, Tensor, fake, nothing_left, torch, without_torch
from tests.p2pstore.samples import MIB, content
from tests.p2pstore.stores import Pair, two_stores

DATA = content(5 * MIB + 1234)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    without_torch(monkeypatch)
    with fake(2, delay=0.0005) as driver:
        yield driver


@pytest.fixture
def pair(gpu: FakeDriver) -> Iterator[Pair]:
    """In the end nothing is left on the GPU."""
    with two_stores() as stores:
        yield stores
    nothing_left(gpu)


KINDS = {"PyTorch": Tensor, "CuPy": Array, "DLPack": OverDLPack}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transport", ["tcp", "auto"])
def test_from_the_host_into_a_gpu(gpu: FakeDriver, pair: Pair, kind: str, transport: str) -> None:
    one, other = pair
    one.register("n", DATA, chunk_size=MIB)
    room = KINDS[kind](gpu, bytes(len(DATA)))
    told = other.get_into("n", room, transport=transport)
    assert room.content == DATA
    assert told["bytes_pulled"] == len(DATA)


@pytest.mark.parametrize("kind", KINDS)
def test_from_a_gpu_to_the_host_and_to_a_file(gpu: FakeDriver, pair: Pair, kind: str, tmp_path: Path) -> None:
    one, other = pair
    one.register("n", KINDS[kind](gpu, DATA), chunk_size=MIB)
    room = bytearray(len(DATA))
    other.get_into("n", room)
    assert room == DATA
    other.get("n", tmp_path / "n")
    assert (tmp_path / "n").read_bytes() == DATA


def test_from_gpu_to_gpu_with_several_buffers_of_both_kinds(gpu: FakeDriver, pair: Pair) -> None:
    one, other = pair
    sizes = {"a": 3 * MIB + 1, "b/c": 10, "d": 2 * MIB, "e": 0, "f": 70_000}
    data = {path: content(size, number) for number, (path, size) in enumerate(sizes.items())}
    source: dict[str, Any] = {
        "a": Tensor(gpu, data["a"]), "b/c": Array(gpu, data["b/c"], device=1), "d": data["d"],
        "e": Tensor(gpu, b""), "f": OverDLPack(gpu, data["f"], device=1),
    }  # fmt: skip
    room: dict[str, Any] = {
        "a": Array(gpu, bytes(sizes["a"]), device=1), "b/c": bytearray(10), "d": Tensor(gpu, bytes(sizes["d"])),
        "e": bytearray(), "f": Tensor(gpu, bytes(sizes["f"])),
    }  # fmt: skip
    one.register("n", source, chunk_size=MIB)
    other.get_into("n", room)
    found = {path: made.content if hasattr(made, "content") else bytes(made) for path, made in room.items()}
    assert found == data


def test_chunks_that_repeat_and_zeros(gpu: FakeDriver, pair: Pair) -> None:
    one, other = pair
    chunk = content(MIB, 5)
    data = chunk + bytes(MIB) + chunk + chunk + bytes(MIB) + content(100, 6)
    one.register("n", data, chunk_size=MIB)
    room = Tensor(gpu, b"\xff" * len(data))
    told = other.get_into("n", room)
    assert room.content == data
    assert told["bytes_reused"] == 4 * MIB
    assert told["bytes_pulled"] == MIB + 100


def test_what_the_node_has_is_copied(gpu: FakeDriver, pair: Pair, tmp_path: Path) -> None:
    one, other = pair
    one.register("n", DATA, chunk_size=MIB)
    other.get("n", tmp_path / "n")
    room = Tensor(gpu, bytes(len(DATA)))
    assert other.get_into("n", room)["bytes_reused"] == len(DATA)
    assert room.content == DATA


def test_it_comes_behind_what_the_current_stream_has_to_do(
    gpu: FakeDriver, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is all there when the call returns."""
    one, other = pair
    one.register("n", DATA, chunk_size=MIB)
    stream = gpu.new_stream()
    monkeypatch.setitem(sys.modules, "torch", torch(stream))
    room = Tensor(gpu, bytes(len(DATA)))
    gpu.pause()
    for _ in range(50):
        gpu.write(room.address, b"\xee" * len(DATA), stream)
    timer = threading.Timer(0.5, gpu.resume)
    timer.start()
    other.get_into("n", room)
    timer.join(WAIT)
    assert room.content == DATA
    with gpu.on(0):
        gpu.end_stream(stream)


def test_it_is_hashed_behind_what_the_current_stream_has_to_do(gpu: FakeDriver, pair: Pair) -> None:
    one, other = pair
    stream = gpu.new_stream()
    source = Array(gpu, bytes(len(DATA)), stream=stream)
    gpu.pause()
    gpu.write(source.address, DATA, stream)
    timer = threading.Timer(0.2, gpu.resume)
    timer.start()
    one.register("n", source, chunk_size=MIB)
    timer.join(WAIT)
    room = bytearray(len(DATA))
    other.get_into("n", room)
    assert room == DATA
    with gpu.on(0):
        gpu.end_stream(stream)


def test_no_more_is_pinned_than_allowed(gpu: FakeDriver, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = pair
    data = content(40 * MIB)
    one.register("n", Array(gpu, data, device=1), chunk_size=MIB)
    cuda = load.cuda()
    monkeypatch.setattr(cuda.arriving, "_limit", 3 * MIB)
    monkeypatch.setattr(cuda.leaving, "_limit", 2 * MIB)
    room = Tensor(gpu, bytes(len(data)))
    other.get_into("n", room)
    assert room.content == data
    assert gpu.most_pinned_bytes <= 5 * MIB
    assert cuda.most_pinned_bytes <= 5 * MIB


def test_pinned_memory_is_given_back_with_the_store(gpu: FakeDriver) -> None:
    with P2PStore(f"memory://{secrets.token_hex(8)}", node="a") as store:
        store.register("n", Tensor(gpu, DATA))
        assert gpu.open["pinned"]
    assert gpu.open == {"pinned": 0, "opened": 0, "events": 0, "memory": 0, "streams": 0}


def test_wrong_bytes_never_reach_the_gpu(gpu: FakeDriver, pair: Pair) -> None:
    one, other = pair
    source = bytearray(DATA)
    one.register("n", source, chunk_size=MIB)
    source[2 * MIB + 5] ^= 1
    room = Tensor(gpu, bytes(len(DATA)))
    with pytest.raises(ChunkMismatch):
        other.get_into("n", room, peers=[one.control])
    assert room.content[2 * MIB : 3 * MIB] == bytes(MIB)


def test_what_is_changed_on_a_gpu_that_serves_it_is_refused(gpu: FakeDriver, pair: Pair) -> None:
    one, other = pair
    source = Tensor(gpu, DATA)
    one.register("n", source, chunk_size=MIB)
    gpu.write(source.address + 2 * MIB, b"\1\2\3")
    with pytest.raises(ChunkMismatch):
        other.get_into("n", bytearray(len(DATA)), peers=[one.control])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda gpu: Tensor(gpu, bytes(100), shape=(25, 2), strides=(4, 1)), r"buffer ''.*not contiguous"),
        (lambda gpu: Tensor(gpu, bytes(99)), "has 99 bytes, the object has"),
        (lambda gpu: Immutable(gpu, bytes(len(DATA))), "buffer '' is read-only"),
    ],
)
def test_what_does_not_fit_is_refused(gpu: FakeDriver, pair: Pair, make: Any, words: str) -> None:
    one, other = pair
    one.register("n", DATA)
    with pytest.raises(UsageError, match=words):
        other.get_into("n", make(gpu))


def test_an_object_that_is_not_there_leaves_nothing(gpu: FakeDriver, pair: Pair) -> None:
    with pytest.raises(ObjectNotFound):
        pair[1].get_into("n", {"a": Tensor(gpu, bytes(10)), "b": Array(gpu, bytes(10))})


@pytest.mark.parametrize("call", ["pin", "to_device", "stream", "event"])
def test_a_call_that_fails_ends_the_get_with_cudas_own_words(gpu: FakeDriver, pair: Pair, call: str) -> None:
    one, other = pair
    one.register("n", DATA, chunk_size=MIB)
    room = Tensor(gpu, bytes(len(DATA)))
    gpu.refuse(call)
    with pytest.raises(GpuFailed, match=r"GPU 0: cu.* failed with CUDA_ERROR_OUT_OF_MEMORY"):
        other.get_into("n", room)
    other.get_into("n", room)
    assert room.content == DATA


def test_a_kernel_that_went_wrong_is_told_by_the_get(monkeypatch: pytest.MonkeyPatch) -> None:
    without_torch(monkeypatch)
    with fake() as gpu, two_stores() as (one, other):
        one.register("n", DATA, chunk_size=MIB)
        room = Tensor(gpu, bytes(len(DATA)))
        gpu.pause()
        timer = threading.Timer(0.3, lambda: (gpu.break_down(), gpu.resume()))
        timer.start()
        with pytest.raises(GpuFailed, match="ILLEGAL_ADDRESS") as caught:
            other.get_into("n", room)
        timer.join(WAIT)
        assert "end this process" in caught.value.hint


def test_a_source_whose_gpu_breaks_is_no_fault_of_the_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    without_torch(monkeypatch)
    with fake() as gpu:
        url = f"memory://{secrets.token_hex(8)}"
        with (
            P2PStore(url, node="a") as one,
            P2PStore(url, node="b") as other,
            P2PStore(url, node="c") as third,
        ):
            one.register("n", Tensor(gpu, DATA), chunk_size=MIB)
            third.register("n", DATA, chunk_size=MIB)
            gpu.break_down()
            room = bytearray(len(DATA))
            other.get_into("n", room)
            assert room == DATA


def test_what_a_broken_gpu_held_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody asks for it any more."""
    without_torch(monkeypatch)
    with fake() as gpu, two_stores() as (one, other):
        one.register("n", Tensor(gpu, DATA), chunk_size=MIB)
        one.register("m", {"gpu": Tensor(gpu, DATA), "host": b"x"}, chunk_size=MIB)
        one.register("host", b"stays")
        gpu.break_down()
        with pytest.raises(MooncakeError):
            other.get_into("n", bytearray(len(DATA)))
        until = time.monotonic() + WAIT
        while "n" in (names := {entry["name"] for entry in other.list()}):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert names == {"m", "host"}, "of the others nobody has asked"


def test_ctrl_c_ends_a_get_when_its_copies_have_ended(gpu: FakeDriver, pair: Pair) -> None:
    one, other = pair
    one.register("n", DATA, chunk_size=MIB)
    room = Tensor(gpu, bytes(len(DATA)))
    main = threading.main_thread().ident
    assert main is not None
    gpu.pause()

    def copying() -> bool:
        return any(stream.tasks for stream in tuple(gpu._streams.values()))

    def interrupt() -> None:
        until = time.monotonic() + WAIT
        while not copying() and time.monotonic() < until:
            time.sleep(0.01)
        signal.pthread_kill(main, signal.SIGINT)
        time.sleep(0.5)
        gpu.resume()

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        other.get_into("n", room)
    after = room.content
    interrupting.join(WAIT)
    one.unregister("n")
    assert room.content == after, "nothing writes to it any more"


def test_without_a_driver_it_is_said_how_to_go_on(pair: Pair, gpu: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = pair
    one.register("n", DATA)
    array = Array(gpu, bytes(len(DATA)))

    def refuse() -> None:
        raise GpuUnavailable(detail="the package cuda-bindings is not installed", todo="install it")

    cuda = load.in_use()
    with monkeypatch.context() as patch:
        patch.setattr(load, "_loaded", None)
        patch.setattr(load, "Bindings", refuse)
        with pytest.raises(GpuUnavailable, match="cuda-bindings is not installed"):
            other.get_into("n", array)
        with pytest.raises(GpuUnavailable, match="cuda-bindings is not installed"):
            one.register("m", array)
    assert load.in_use() is cuda
