"""CUDA is loaded when it is needed, and where it cannot be, one line says why."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from engine.cuda import load
from engine.errors import GpuUnavailable
from tests.engine.cuda.gpus import fake


def test_it_is_loaded_once() -> None:
    load.forget()  # on a machine with GPUs another test may have used them
    with fake() as driver:
        assert load.cuda() is load.cuda()
        assert load.cuda().driver is driver
    assert load.in_use() is None


def test_what_is_pinned_is_bounded_and_counted() -> None:
    assert load.ARRIVING_BYTES + load.LEAVING_BYTES <= 1 << 30
    with fake() as driver:
        cuda = load.cuda()
        buffer = cuda.arriving.take(1, 0, lambda: None)
        cuda.leaving.give(cuda.leaving.take(1, 0, lambda: None))
        assert cuda.pinned_bytes == 2 << 20
        cuda.arriving.give(buffer)
        cuda.trim()
        assert cuda.pinned_bytes == 0
        assert cuda.most_pinned_bytes == 2 << 20
        assert not driver.pinned


def test_a_forked_child_is_told() -> None:
    with fake() as driver:
        load.cuda()
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                load.cuda()
            except GpuUnavailable as error:
                os.write(writer, f"{error}; {error.hint}".encode())
            finally:
                os._exit(0)
        os.close(writer)
        said = os.read(reader, 1000).decode()
        os.waitpid(child, 0)
        os.close(reader)
        assert driver.open["pinned"] == 0
    assert "forked from one that uses CUDA" in said
    assert "spawn" in said


def test_neither_the_package_nor_cuda_is_loaded_before() -> None:
    program = """
import sys
import p2pstore.store
assert not {name for name in sys.modules if name.split(".")[0] in ("cuda", "numpy", "torch")}
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="this machine has a GPU")
def test_without_a_driver_a_sentence() -> None:
    pytest.importorskip("cuda.bindings", reason="pip install cuda-bindings")
    with pytest.raises(GpuUnavailable, match="NVIDIA's driver is not installed here") as caught:
        load.cuda()
    assert "nvidia-smi" in caught.value.hint
