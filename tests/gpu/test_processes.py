"""Memory of a GPU that another process has opened, and memory of the host that several have pinned, on real GPUs."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.cuda.load import Cuda
from engine.cuda.pinned import until_done
from engine.errors import GpuFailed
from tests.gpu.checkpoints import path_with

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
SIZE = 256 * MIB
WAIT = 60.0

OWNER = f"""
import ctypes, sys, time
from engine.cuda import load
device = int(sys.argv[1])
driver = load.cuda().driver
with driver.on(device):
    room, pinned, stream, event = driver.memory({SIZE}), driver.pin({SIZE}), driver.stream(), driver.event()
    ctypes.memset(pinned, 0x5A, {SIZE})
    driver.to_device(room, pinned, {SIZE}, stream)
    driver.record(event, stream)
    while not driver.done(event):
        time.sleep(0.001)
    print(driver.export(room).handle.hex(), driver.pci_address(device), flush=True)
    sys.stdin.read()
    driver.end_memory(room)
"""


@contextmanager
def owner(device: int) -> Iterator[tuple[subprocess.Popen[str], bytes]]:
    """A process with memory of a GPU, whose bytes are all 0x5A, and what opens it."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(device)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path_with(ROOT)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process, bytes.fromhex(process.stdout.readline().split()[0])
        finally:
            process.kill()
            process.stdin.close()


def places(cuda: Cuda, kind: str) -> tuple[int, int]:
    """The reader's GPU, and the owner's."""
    if kind == "same GPU":
        return 0, 0
    if cuda.driver.count() < 2:
        pytest.skip("NOT TESTED ON SEVERAL GPUS: there is one")
    if not cuda.driver.reaches(0, 1):
        pytest.skip("NOT TESTED BETWEEN GPUS: the first two are no peers")
    return 0, 1


@contextmanager
def mine(cuda: Cuda, device: int) -> Iterator[tuple[int, int, int]]:
    """Memory of a GPU, pinned memory and a stream."""
    driver = cuda.driver
    with driver.on(device):
        room, pinned, stream = driver.memory(SIZE), driver.pin(SIZE), driver.stream()
        try:
            yield room, pinned, stream
        finally:
            driver.end_stream(stream)
            driver.unpin(pinned)
            driver.end_memory(room)


def see_done(cuda: Cuda, device: int, stream: int) -> None:
    with cuda.driver.on(device):
        event = cuda.driver.event()
        cuda.driver.record(event, stream)
    assert until_done(cuda.driver, device, event, time.monotonic() + WAIT, lambda: None)


@pytest.mark.parametrize("kind", ["same GPU", "another GPU"])
def test_memory_of_another_process_is_read(cuda: Cuda, kind: str) -> None:
    device, theirs = places(cuda, kind)
    with owner(theirs) as (_, handle), mine(cuda, device) as (room, pinned, stream):
        ctypes.memset(pinned, 0, SIZE)
        opened = cuda.driver.open_exported(handle)
        cuda.driver.to_peer(room, opened, SIZE, stream, device)
        cuda.driver.to_host(pinned, room, SIZE, stream)
        see_done(cuda, device, stream)
        cuda.driver.close_exported(opened)
        assert ctypes.string_at(pinned, SIZE) == b"\x5a" * SIZE


@pytest.mark.parametrize("kind", ["same GPU", "another GPU"])
def test_an_owner_that_is_killed_costs_the_reader_nothing(
    cuda: Cuda, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a reader is built on: copies under way end, and this process can go on with its GPU."""
    device, theirs = places(cuda, kind)
    driver = cuda.driver
    with owner(theirs) as (process, handle), mine(cuda, device) as (room, pinned, stream):
        opened = driver.open_exported(handle)
        process.kill()
        said, copied = "still had what it had", 0
        try:
            while process.poll() is None or copied % 64:  # copies are under way while its memory is taken apart
                driver.to_peer(room, opened, SIZE, stream, device)
                copied += 1
                if copied % 16 == 0:
                    see_done(cuda, device, stream)
            driver.to_peer(room, opened, SIZE, stream, device)
            driver.to_host(pinned, room, SIZE, stream)
            see_done(cuda, device, stream)
            if ctypes.string_at(pinned, SIZE) != b"\x5a" * SIZE:
                said = "had other bytes"
        except GpuFailed as error:
            said = f"could not be read: {error}"
        try:
            driver.close_exported(opened)
        except GpuFailed as error:
            said += f", and not be closed: {error}"
        with capsys.disabled():
            print(f"\n  {kind}: memory whose owner was killed {said}")
        # Whatever was said of the memory: the GPU is still ours.
        ctypes.memset(pinned, 0x33, SIZE)
        driver.to_device(room, pinned, SIZE, stream)
        ctypes.memset(pinned, 0, 1)
        driver.to_host(pinned, room, SIZE, stream)
        see_done(cuda, device, stream)
        assert ctypes.string_at(pinned + MIB, 1) == b"\x33"


def test_a_mapping_that_two_processes_have_pinned(cuda: Cuda) -> None:
    """One writes, and both GPUs copy: shared memory is pinned in each process by itself."""
    driver, size = cuda.driver, 16 * MIB
    number = os.memfd_create("shared")
    os.ftruncate(number, size)
    shared = mmap.mmap(number, size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    program = f"""
import ctypes, mmap, sys
from engine.cuda import load
shared = mmap.mmap({number}, {size})
address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
driver = load.cuda().driver
with driver.on(driver.count() - 1):
    driver.register(address, {size})
    shared[:] = b"\\x44" * {size}
    print("written", flush=True)
    sys.stdin.read()
    driver.unregister(address)
"""
    with (
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, pass_fds=[number],
            env={**os.environ, "PYTHONPATH": path_with(ROOT)},
        ) as process,
        mine(cuda, 0) as (room, pinned, stream),
    ):  # fmt: skip
        assert process.stdout is not None
        driver.register(address, size)
        assert process.stdout.readline() == "written\n"
        driver.to_device(room, address, size, stream)
        driver.to_host(pinned, room, size, stream)
        see_done(cuda, 0, stream)
        process.communicate(timeout=WAIT)
        driver.unregister(address)
        assert ctypes.string_at(pinned, size) == b"\x44" * size
    os.close(number)
