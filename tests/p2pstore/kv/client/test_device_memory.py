"""Memory of devices, by a driver that has such memory in a drawer; and on a GPU, where there is one."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.errors import UsageError
from engine.memory.copying import address_of, view_of
from p2pstore.kv.client import device_memory
from p2pstore.kv.client.compat import MooncakeDistributedStore
from p2pstore.kv.client.device_memory import Arriving, Cuda, Departing, HostMemory
from p2pstore.kv.client.tensors import TensorHeader
from tests.p2pstore.kv.client.conftest import SEGMENT
from tests.p2pstore.kv.client.peers import value_of

FIRST = 0x7F00_0000_0000_0000
"""No address of a process: whoever reads there himself is ended."""


class Drawer:
    """A driver, and a device's memory."""

    def __init__(self) -> None:
        self.memory = bytearray(1 << 20)

    def owns(self, pointer: int) -> bool:
        return FIRST <= pointer < FIRST + len(self.memory)

    def to_host(self, to: int, pointer: int, size: int) -> None:
        at = pointer - FIRST
        if at + size > len(self.memory):
            raise UsageError(detail="the memory of the GPU cannot be copied: cuMemcpyDtoH_v2 fails with 1")
        ctypes.memmove(to, bytes(self.memory[at : at + size]), size)

    def to_device(self, pointer: int, source: int, size: int) -> None:
        at = pointer - FIRST
        self.memory[at : at + size] = ctypes.string_at(source, size)


@pytest.fixture
def drawer(monkeypatch: pytest.MonkeyPatch) -> Drawer:
    made = Drawer()
    monkeypatch.setattr(device_memory, "_driver", made)
    return made


@pytest.fixture
def store(drawer: Drawer, compat_store: MooncakeDistributedStore) -> MooncakeDistributedStore:
    return compat_store


def test_without_the_drivers_library_in_this_process_there_is_no_driver() -> None:
    """It is not loaded for a look."""
    if "libcuda.so" in Path("/proc/self/maps").read_text():
        pytest.skip("THE DRIVER'S LIBRARY IS LOADED IN EVERY PROCESS HERE")
    assert device_memory.driver() is None
    memory = bytearray(b"12345")
    assert Departing(view_of).at(address_of(memory), 5) == b"12345"
    arriving = Arriving(view_of)
    arriving.at(address_of(memory), 5)[:] = b"abcde"
    arriving.land()
    assert memory == b"abcde"


def test_it_is_looked_for_again_once_a_library_was_loaded(tmp_path: Path) -> None:
    """In a process of its own: a copy of some library goes for the driver."""
    some = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "_ctypes" in line)
    (tmp_path / "libcuda.so.1").write_bytes(Path(some).read_bytes())
    script = (
        "import ctypes; from p2pstore.kv.client import device_memory as d; assert d.driver() is None; "
        "ctypes.CDLL('libcuda.so.1'); assert type(d.driver()).__name__ == 'Cuda'"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, env=environment)


def test_threads_that_look_for_it_do_not_wait_for_each_other() -> None:
    """They did for ever: one had the loader's lock and waited for the interpreter's, the other the other way round."""
    script = (
        "import sys, threading; from p2pstore.kv.client import device_memory as d; sys.setswitchinterval(1e-6); "
        "look = lambda: [d.driver() for _ in range(5000)]; "
        "threads = [threading.Thread(target=look, daemon=True) for _ in range(4)]; "
        "[each.start() for each in threads]; [each.join(60) for each in threads]; "
        "assert not any(each.is_alive() for each in threads)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_memory_that_is_known_to_be_the_hosts() -> None:
    host = HostMemory()
    assert not host.holds(0, 1)
    host.add(1000, 100)
    host.add(5000, 10)
    assert host.holds(1000, 100)
    assert host.holds(1099, 1)
    assert host.holds(5009, 1)
    assert not host.holds(999, 2)
    assert not host.holds(1099, 2)
    assert not host.holds(4999, 1)
    host.add(1000, 50)
    assert not host.holds(1000, 51), "what was registered last counts"
    host.discard(1000)
    host.discard(7)
    assert not host.holds(1000, 1)
    assert host.holds(5000, 10)


def test_known_memory_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = bytearray(b"0123456789")
    start = address_of(memory)
    host = HostMemory()
    host.add(start, 10)
    looks: list[int] = []
    monkeypatch.setattr(device_memory, "driver", lambda: looks.append(1))
    assert Departing(view_of, host).at(start + 3, 7) == b"3456789"
    assert not looks
    Departing(view_of, host).at(start + 3, 8)
    assert looks == [1]


def test_values_go_out_of_a_device_and_into_it(store: MooncakeDistributedStore, drawer: Drawer) -> None:
    value = value_of("a device's", 1000)
    drawer.memory[:1000] = value
    store.remove_by_regex("^device-", True)
    assert store.register_buffer(FIRST, len(drawer.memory)) == 0
    assert store.put_from("device-1", FIRST, 1000) == 0
    assert store.batch_put_from_multi_buffers(["device-2"], [[FIRST + 500, FIRST]], [[100, 50]]) == [0]
    assert store.get("device-1") == value
    assert store.get_into("device-1", FIRST + 5000, 2000) == 1000
    assert drawer.memory[5000:6000] == value
    assert store.batch_get_into_multi_buffers(["device-2"], [[FIRST + 9000, FIRST + 7000]], [[120, 200]]) == [150]
    assert drawer.memory[9000:9120] + drawer.memory[7000:7030] == value[500:600] + value[:50]
    assert store.get_into_ranges([FIRST], [["device-1"]], [[[20_000]]], [[[10]]], [[[30]]]) == [[[30]]]
    assert drawer.memory[20_000:20_030] == value[10:40]
    assert store.batch_get_session_start(["device-1"]) == [0]
    assert store.batch_get_into_multi_buffer_ranges(["device-1"], [[FIRST + 30_000]], [[7]], [[990]]) == [7]
    assert drawer.memory[30_000:30_007] == value[990:997]
    assert store.batch_put_session_start(["device-3"], [10]) == [0]
    assert store.batch_put_from_multi_buffer_ranges(["device-3"], [[FIRST]], [[10]], [[0]]) == [0]
    assert store.batch_put_session_end(["device-3"]) == [0]
    assert store.get("device-3") == value[:10]


def test_tensors_are_read_out_of_a_device_and_not_made_in_it(store: MooncakeDistributedStore, drawer: Drawer) -> None:
    """The header of one that came there is not looked at: this process would end."""
    tensor = np.arange(6, dtype=np.int32)
    laid = TensorHeader.of(tensor).pack() + tensor.tobytes()
    drawer.memory[: len(laid)] = laid
    store.remove("device-tensor", True)
    assert store.put_tensor_from("device-tensor", FIRST, len(laid)) == 0
    assert store.get("device-tensor") == laid
    for known in (False, True):
        assert not known or store.register_buffer(FIRST, len(drawer.memory)) == 0
        assert store.get_tensor_into("device-tensor", FIRST + 5000, 1000) is None
        assert "get_tensor_into_cuda" in store.last_error
    assert store.batch_get_tensor_with_tp_into(["device-tensor"] * 2, [1, FIRST], [1000] * 2) == [None, None]


def test_what_the_driver_refuses_is_told(store: MooncakeDistributedStore, drawer: Drawer) -> None:
    assert store.put_from("device-4", FIRST + len(drawer.memory) - 5, 10) == -600
    assert "cuMemcpyDtoH_v2 fails with 1" in store.last_error


class Library:
    """``libcuda``, as far as it is called."""

    def __init__(self) -> None:
        self.code = 0
        self.called: list[str] = []
        self.attributes = {2: 2, 8: 0, 9: 3}

    def cuPointerGetAttribute(self, found: object, which: ctypes.c_int, pointer: ctypes.c_uint64) -> int:
        if not pointer.value:
            return 1
        ctypes.cast(found, ctypes.POINTER(ctypes.c_uint))[0] = self.attributes[which.value]  # type: ignore[arg-type]
        return 0

    def __getattr__(self, name: str) -> object:
        def call(*args: object) -> int:
            self.called.append(name)
            return self.code if name.startswith("cuMemcpy") else 0

        return call


def test_the_real_driver_is_called_at_the_memorys_device_and_left_as_it_was() -> None:
    library = Library()
    cuda = Cuda(library)  # type: ignore[arg-type]
    assert cuda.owns(5)
    assert not cuda.owns(0)
    library.attributes[8] = 1
    assert not cuda.owns(5), "managed memory is read as it is"
    library.attributes[2] = 1
    assert not cuda.owns(5), "pinned memory of the host, too"
    room = bytearray(4)
    cuda.to_host(address_of(room), 5, 4)
    around = ["cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2", "cuDevicePrimaryCtxRelease_v2"]
    assert library.called == [*around[:2], "cuMemcpyDtoH_v2", *around[2:]]
    library.called.clear()
    library.code = 700
    with pytest.raises(UsageError, match="cuMemcpyHtoD_v2 fails with 700"):
        cuda.to_device(5, address_of(room), 4)
    assert library.called == [*around[:2], "cuMemcpyHtoD_v2", *around[2:]]


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The address of 1 MiB on the first GPU."""
    try:
        cuda = ctypes.CDLL(device_memory.LIBRARY.decode())
    except OSError:
        pytest.skip("NO TEST ON A GPU: CUDA's driver is not installed")
    monkeypatch.setattr(device_memory, "_driver", None)
    device, context, pointer = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        pytest.skip("NO TEST ON A GPU: there is none")
    assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
    assert cuda.cuCtxSetCurrent(context) == 0
    assert cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(1 << 20)) == 0
    yield pointer.value
    cuda.cuMemFree_v2(pointer)
    cuda.cuDevicePrimaryCtxRelease_v2(device)


def test_values_go_out_of_a_gpu_and_into_it(on_gpu: int, master: str) -> None:
    store = MooncakeDistributedStore()
    assert store.setup("127.0.0.1", "P2PHANDSHAKE", SEGMENT, SEGMENT, "tcp", "", master) == 0, store.last_error
    value = value_of("a gpu's", 100_000)
    assert store.upsert("gpu", value) == 0
    assert store.get_into("gpu", on_gpu, 1 << 20) == 100_000
    assert store.upsert_from("gpu-2", on_gpu + 1, 99_999) == 0
    assert store.get("gpu-2") == value[1:]
    store.close()
