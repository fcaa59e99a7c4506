"""Tensors into several memories of real GPUs at once. What one GPU can show is shown on one; the rest needs two."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from engine.cuda.links import links
from engine.cuda.load import Cuda
from p2pstore import P2PStore
from p2pstore.bench.gpu import TorchGpus
from tests.gpu.checkpoints import MIB, Pair, checkpoint

torch = pytest.importorskip("torch", reason="NOT TESTED ON A GPU: PyTorch is missing")
pytest.importorskip("safetensors.torch", reason="NOT TESTED ON A GPU: safetensors is missing")

WAIT = 60.0
RANKS = 4


def devices_of(kind: str) -> list[str]:
    """Several places on one GPU; or all GPUs, of which the first is named twice."""
    if kind == "one GPU":
        return ["cuda:0", "cuda:0", "cuda:0", "cuda:0"]
    count = torch.cuda.device_count()
    if count < 2:
        pytest.skip(f"NOT TESTED ON SEVERAL GPUS: there is {count}")
    named = [f"cuda:{number}" for number in range(count)]
    return (named * RANKS)[: RANKS if count <= RANKS else 2 * RANKS]  # so many share every dimension


def sent(store: P2PStore) -> int:
    return store._open().engine.bytes_sent


@pytest.fixture(params=["one GPU", "all GPUs"])
def devices(request: pytest.FixtureRequest) -> list[str]:
    return devices_of(request.param)


def test_all_get_the_same_and_it_comes_once(pair: Pair, tmp_path: Path, devices: list[str]) -> None:
    one, other = pair
    made = checkpoint(tmp_path / "m")
    one.register("n", tmp_path / "m", chunk_size=MIB)
    size = sum(path.stat().st_size for path in (tmp_path / "m").iterdir())
    found = other.load_tensors("n", devices=devices, transport="tcp")
    assert len(found) == len(devices)
    for device, tensors in zip(devices, found, strict=True):
        assert set(tensors) == set(made)
        for name, tensor in tensors.items():
            assert tensor.device == torch.device(device)
            assert torch.equal(tensor.cpu(), made[name]), name
    places = {tensor.untyped_storage().data_ptr() for tensors in found for tensor in tensors.values()}
    assert len(places) == 2 * len(devices), "each has memory of its own"
    assert sent(one) < 1.1 * size


def test_each_gets_its_ranks_slices_and_all_comes_once(pair: Pair, tmp_path: Path, devices: list[str]) -> None:
    one, other = pair
    made = checkpoint(tmp_path / "m")
    one.register("n", tmp_path / "m", chunk_size=MIB)
    size = sum(path.stat().st_size for path in (tmp_path / "m").iterdir())
    found = other.load_tensors("n", devices=devices, layout="shard", transport="tcp")
    for name, whole in made.items():
        parts = [tensors[name] for tensors in found]
        assert [part.device for part in parts] == [torch.device(device) for device in devices]
        parts = [part.cpu() for part in parts]
        if "norm" in name:
            assert all(torch.equal(part, whole) for part in parts)
        else:
            assert torch.equal(torch.cat(parts, 1 if "down_proj" in name else 0), whole)
    assert sent(one) < 1.1 * size


def test_each_waits_for_what_the_current_stream_of_its_gpu_has_to_do(
    pair: Pair, tmp_path: Path, devices: list[str]
) -> None:
    one, other = pair
    made = checkpoint(tmp_path / "m")
    one.register("n", tmp_path / "m")
    busy: list[Any] = []
    for device in set(devices):
        torch.cuda.set_stream(torch.cuda.Stream(device))
        with torch.cuda.device(device):
            torch.cuda._sleep(500_000_000)
            busy.append(torch.zeros(512 * MIB, dtype=torch.uint8, device=device).add_(1))
    busy.clear()  # the memory is the streams' to be had again, behind what was begun
    try:
        found = other.load_tensors("n", devices=devices)
    finally:
        for device in set(devices):
            torch.cuda.set_stream(torch.cuda.default_stream(device))
    for tensors in found:
        assert all(torch.equal(tensor.cpu(), made[name]) for name, tensor in tensors.items())


def test_a_copy_within_a_gpu_and_to_its_peers(cuda: Cuda) -> None:
    """What the copies rest on: it is done behind what its stream has to do, and arrives."""
    driver, source = cuda.driver, torch.arange(MIB, dtype=torch.int32, device="cuda:0")
    torch.cuda.synchronize(0)
    for number in range(torch.cuda.device_count()):
        room = torch.zeros(MIB, dtype=torch.int32, device=f"cuda:{number}")
        torch.cuda.synchronize(number)
        if not cuda.peers.reach(0, number):
            continue
        with driver.on(0):
            stream, event = driver.stream(), driver.event()
            driver.to_peer(room.data_ptr(), source.data_ptr(), 4 * MIB, stream, number)
            driver.record(event, stream)
            end = time.monotonic() + WAIT
            while not driver.done(event):
                assert time.monotonic() < end
            driver.end_event(event)
            driver.end_stream(stream)
        assert torch.equal(room.cpu(), source.cpu())


def test_cuda_and_pytorch_agree_on_who_reaches_whom(cuda: Cuda) -> None:
    count = torch.cuda.device_count()
    if count < 2:
        pytest.skip(f"NOT TESTED ON SEVERAL GPUS: there is {count}")
    assert cuda.driver.count() == count
    for one in range(count):
        for other in range(count):
            if one != other:
                assert cuda.driver.reaches(one, other) == torch.cuda.can_device_access_peer(one, other)
    assert sorted(device for group in cuda.peers.groups(range(count)) for device in group) == list(range(count))


def test_gpus_are_where_sysfs_has_them(cuda: Cuda) -> None:
    found = [cuda.driver.pci_address(number) for number in range(cuda.driver.count())]
    assert len(set(found)) == len(found)
    for address in found:
        assert Path("/sys/bus/pci/devices", address, "vendor").read_text().strip() == "0x10de"
    count = len(found)
    told = links(cuda.driver)
    assert len(told) == count * (count - 1)
    assert all(link.peer for link in told if link.nvlink), "what NVLink joins are peers"


def test_the_bench_tells_right_from_wrong() -> None:
    gpus = TorchGpus()
    made = torch.arange(64, dtype=torch.int16, device="cuda:0").view(torch.bfloat16).reshape(4, 16)
    right = memoryview(bytearray(made.view(torch.int16).cpu().numpy().tobytes()))
    assert gpus.same(made, "cuda:0", (4, 16), right)
    assert not gpus.same(made, "cuda:0", (16, 4), right)
    right[5] ^= 1
    assert not gpus.same(made, "cuda:0", (4, 16), right)
    gpus.settle()


def test_memory_is_given_back(cuda: Cuda) -> None:
    free, _ = torch.cuda.mem_get_info(0)
    with cuda.driver.on(0):
        room = cuda.driver.memory(256 * MIB)
        assert torch.cuda.mem_get_info(0)[0] <= free - 256 * MIB
        cuda.driver.end_memory(room)
    assert torch.cuda.mem_get_info(0)[0] > free - 256 * MIB
