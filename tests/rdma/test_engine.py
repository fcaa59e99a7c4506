"""A ``TransferEngine`` of protocol rdma on real devices, and upstream's own engine at the other end."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.engine import TransferEngine
from tests.p2pstore.samples import MIB, content
from tests.rdma.conftest import HOSTS, OURS, THEIRS

ROOT = Path(__file__).parents[2]
SIZE = 3 * MIB
WAIT = 120


def test_reads_and_writes() -> None:
    with (
        TransferEngine(HOSTS[OURS], protocol="rdma", device_name=OURS) as one,
        TransferEngine(HOSTS[THEIRS], protocol="rdma", device_name=THEIRS) as other,
    ):
        theirs = bytearray(content(SIZE + 5))
        remote = other.register_memory(theirs, writable=True)
        into = bytearray(len(theirs))
        local = one.register_memory(into)
        peer = one.open_segment(other.segment_name)
        assert peer.over_rdma
        one.read(local, peer, remote.address)
        assert into == theirs
        into.reverse()
        one.write(local, peer, remote.address)
        assert theirs == into
        unregistered = bytearray(SIZE)
        one.read(unregistered, peer, remote.address + 5)
        assert unregistered == theirs[5:]


@pytest.fixture
def upstream(tmp_path: Path) -> dict[str, str]:
    """The environment for upstream's engine; skips where its wheel does not load."""
    done = subprocess.run([sys.executable, "-c", "import mooncake.engine"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED WITH UPSTREAM'S ENGINE: {done.stderr.strip().splitlines()[-1]}")
    return {**os.environ, "GLOG_minloglevel": "2", "TOPOLOGY": str(tmp_path / "topology.json")}


def run_upstream(environment: dict[str, str], device: str, *arguments: str) -> subprocess.Popen[str]:
    """``upstream.py`` with a device, whose topology is told it: a guest may have no NUMA nodes to find it by."""
    file = Path(environment["TOPOLOGY"])
    file.write_text(json.dumps({"cpu:0": [[device], []]}))
    environment = {**environment, "MC_CUSTOM_TOPO_JSON": str(file)}
    command = [sys.executable, "-m", "tests.rdma.upstream", HOSTS[device], device, *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def last_line(process: subprocess.Popen[str], words: str = "") -> dict[str, object]:
    """What it says, in its last line of JSON, after being told ``words``."""
    try:
        output, _ = process.communicate(words, timeout=WAIT)
    finally:
        process.kill()
    lines = [line for line in output.splitlines() if line.startswith("{")]
    assert lines, output
    found: dict[str, object] = json.loads(lines[-1])
    return found


def test_upstreams_engine_reads_and_writes_ours(upstream: dict[str, str]) -> None:
    with TransferEngine(HOSTS[THEIRS], protocol="rdma", device_name=THEIRS) as engine:
        memory = bytearray(content(SIZE))
        before = bytes(memory)
        ours = engine.register_memory(memory, name="cpu:0", writable=True)
        process = run_upstream(upstream, OURS, "initiator", engine.segment_name, str(ours.address), str(SIZE))
        told = last_line(process)
        assert told == {"protocol": "rdma", "read": 0, "first": before[:16].hex(), "write": 0}
        assert memory == before[::-1]


def test_ours_reads_and_writes_upstreams_engine(upstream: dict[str, str]) -> None:
    process = run_upstream(upstream, THEIRS, "target", str(SIZE))
    try:
        assert process.stdout is not None
        told = json.loads(next(line for line in process.stdout if line.startswith("{")))
        with TransferEngine(HOSTS[OURS], protocol="rdma", device_name=OURS) as engine:
            peer = engine.open_segment(told["segment"])
            assert peer.over_rdma
            assert not peer.descriptor.tcp_data_port
            into = bytearray(SIZE)
            local = engine.register_memory(into)
            engine.read(local, peer, told["address"])
            assert into[:16].hex() == told["first"]
            assert into == bytes(into[:256]) * (SIZE // 256)
            into.reverse()
            engine.write(local, peer, told["address"])
            assert last_line(process, "show\n") == {"first": into[:16].hex(), "last": into[-16:].hex()}
    finally:
        process.kill()


def test_the_address_of_memory_is_its_own() -> None:
    memory = mmap.mmap(-1, 4096)
    from engine.memory.region import Region

    held = Region.of(memory)
    assert held.address == ctypes.addressof(ctypes.c_char.from_buffer(memory))
    held.close()
