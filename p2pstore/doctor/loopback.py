"""Each transport within this process: some bytes really move from one segment into a buffer, and are compared."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from engine.memory.buffers import FilesBuffer
from engine.memory.file_spans import FileSpan
from engine.serving.segment_server import SegmentServer
from engine.transports.into_memory import IntoMemory
from p2pstore.errors import MooncakeError, TransportUnavailable
from p2pstore.peers.checks import Check, failed, ok, warning

SIZE = 4 << 20
"""Bytes that move."""

TRIED = ("tcp", "local", "rdma")


def check_transports(*, rdma: bool) -> Iterator[Check]:
    """One check a transport. ``rdma``: whether a device is usable, so that RDMA has to work."""
    with tempfile.TemporaryDirectory(prefix="mooncake-doctor-") as directory:
        file = Path(directory) / "bytes"
        data = os.urandom(SIZE)
        file.write_bytes(data)
        with SegmentServer(local_socket=Path(directory) / "socket", rdma=rdma) as segment:
            address = segment.register(FilesBuffer("doctor", [FileSpan(str(file), SIZE)]))
            for name in TRIED if rdma else TRIED[:-1]:
                yield _move(segment, name, address, data)


def _move(segment: SegmentServer, name: str, address: int, data: bytes) -> Check:
    subject = f"{name} to ourselves"
    peer = segment.address_of_self()
    into = bytearray(len(data))
    began = time.monotonic()
    try:
        why_not = segment.transport(name).usable(peer)
        if why_not:
            return warning(subject, f"not used: {why_not}")
        with contextlib.closing(segment.open(peer, name)) as channel:
            channel.submit(address, len(data))
            channel.receive(IntoMemory(memoryview(into)))
    except TransportUnavailable as error:
        return warning(subject, str(error), error.hint)
    except MooncakeError as error:
        return failed(subject, str(error), "look for a firewall on the loopback interface", 9)
    if into != data:
        return failed(subject, f"{len(data)} bytes arrived changed", "suspect this machine's memory", 4)
    return ok(subject, f"{len(data) >> 20} MiB moved and equal in {1000 * (time.monotonic() - began):.0f} ms")
