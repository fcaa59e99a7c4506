"""The real Mooncake Transfer Engine, in a process of its own, reads and writes our segments, and we read its."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RangeRefused
from engine.files.stamps import FileStamp
from engine.memory.buffers import FilesBuffer, MemoryBuffer
from engine.memory.file_spans import FileSpan
from engine.net.addresses import parse
from engine.net.handshake_client import fetch_descriptor
from engine.serving.segment_server import SegmentServer
from engine.transports.base import PeerAddress

HERE = Path(__file__).parent
MARK = "answer "
ANSWER_WITHIN = 60.0

Ask = Callable[..., dict[str, Any]]


def importable() -> str:
    """Why the wheel cannot be used here, or nothing."""
    probe = subprocess.run(
        [sys.executable, "-c", "import mooncake.engine"], capture_output=True, text=True, timeout=60, check=False
    )
    return "" if not probe.returncode else (probe.stderr.strip().splitlines() or ["it does not start"])[-1]


WHY_NOT = importable()
pytestmark = pytest.mark.skipif(
    bool(WHY_NOT), reason=f"NO INTEROP TEST: mooncake-transfer-engine-non-cuda is not usable: {WHY_NOT}"
)


@pytest.fixture(scope="module", params=["v2", "v1"])
def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Ask the real engine: ``upstream(do, segment, address, at, length)``; with no arguments, who it is."""
    environment = {**os.environ, "MC_FORCE_TCP": "1", "MC_TCP_BIND_ADDRESS": "127.0.0.1"}
    if request.param == "v1":
        environment["MC_TCP_PROTO"] = "1"
    logs = (tmp_path_factory.mktemp("upstream") / "log").open("wb")
    process = subprocess.Popen(
        [sys.executable, str(HERE / "upstream_peer.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=logs, text=True, env=environment,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    asks, answers = process.stdin, process.stdout

    def answer() -> dict[str, Any]:
        for line in answers:
            if line.startswith(MARK):
                return dict(json.loads(line[len(MARK) :]))
        pytest.fail("the real engine ended:\n" + Path(logs.name).read_text(errors="replace")[-2000:])

    me = answer()

    def ask(do: str = "", segment: str = "", address: int = 0, at: int = 0, length: int = 0) -> dict[str, Any]:
        if not do:
            return me
        asks.write(json.dumps({"do": do, "segment": segment, "address": address, "at": at, "length": length}) + "\n")
        asks.flush()
        return answer()

    yield ask
    asks.close()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    answers.close()
    logs.close()


@pytest.fixture
def ours() -> Iterator[SegmentServer]:
    with SegmentServer() as made:
        yield made


def test_it_reads_our_files(upstream: Ask, ours: SegmentServer, tmp_path: Path) -> None:
    rng = random.Random(1)
    spans, whole = [], b""
    for name, size in [("a", 3_000_001), ("empty", 0), ("b", 5_000_000)]:
        path = tmp_path / name
        path.write_bytes(rng.randbytes(size))
        whole += path.read_bytes()
        spans.append(FileSpan(str(path), size, FileStamp.of(path.stat())))
    address = ours.register(FilesBuffer("checkpoint", spans))
    for at, length in [(0, len(whole)), (1, 1), (2_999_999, 4), (123_457, 4_000_000)]:
        answer = upstream("read", ours.segment_name, address + at, 0, length)
        assert answer == {"code": 0, "sha256": hashlib.sha256(whole[at : at + length]).hexdigest()}


def test_it_writes_our_memory_where_it_may(upstream: Ask, ours: SegmentServer) -> None:
    memory = bytearray(2_000_000)
    address = ours.register(MemoryBuffer("open", memory, writable=True))
    answer = upstream("write", ours.segment_name, address + 10, 5, 1_500_000)
    assert answer["code"] == 0
    # A version 1 write has no acknowledgement: read the bytes back, over a connection that comes after it.
    deadline = time.monotonic() + ANSWER_WITHIN
    while time.monotonic() < deadline:
        if hashlib.sha256(memory[10:1_500_010]).hexdigest() == answer["sha256"]:
            break
        upstream("hash", at=0, length=1 << 20)
    assert hashlib.sha256(memory[10:1_500_010]).hexdigest() == answer["sha256"]


def test_it_is_refused_beyond_a_buffer(upstream: Ask, ours: SegmentServer) -> None:
    address = ours.register(MemoryBuffer("small", bytes(100)))
    assert upstream("read", ours.segment_name, address, 0, 101)["code"] != 0
    assert upstream("read", ours.segment_name, address, 0, 100)["code"] == 0


def test_we_read_its_memory(upstream: Ask, ours: SegmentServer) -> None:
    me = upstream()
    host, rpc_port = parse(me["segment"])
    found = fetch_descriptor(host, rpc_port)
    assert (me["address"], me["length"]) in [(each.address, each.length) for each in found.buffers]
    for version in {1, found.tcp_proto_version}:
        peer = PeerAddress(found.name, host, found.tcp_data_port, protocol_version=version)
        for at, length in [(0, 1), (12_345, 20_000_000)]:
            got = bytearray(length)
            ours.read(peer, me["address"] + at, memoryview(got))
            assert hashlib.sha256(got).hexdigest() == upstream("hash", at=at, length=length)["sha256"]
        with pytest.raises(RangeRefused):
            ours.read(peer, 4096, memoryview(bytearray(10)))


def test_both_live_in_one_process() -> None:
    script = (
        "import mooncake.engine, engine.engine, engine.transports\n"
        "theirs, ours = mooncake.engine.TransferEngine(), engine.engine.TransferEngine()\n"
        "assert type(theirs) is not type(ours)\n"
        "assert not mooncake.__file__.startswith(engine.__path__[0])\n"
        "ours.close(); print('both')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False, cwd=HERE.parents[1]
    )
    assert done.returncode == 0, done.stderr
    assert "both" in done.stdout
