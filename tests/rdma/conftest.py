"""Tests on real verbs: two soft devices, ``rxe0`` and ``rxe1``, which ``make test-rdma`` has in a virtual machine.

Elsewhere they are skipped; in the virtual machine that would hide everything, and is an error.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from p2pstore.metadata.memory import MemoryServer, MemoryStore
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions

OURS, THEIRS = "rxe1", "rxe0"
"""The reader's device and the owner's."""

HOSTS = {"rxe0": "10.77.0.1", "rxe1": "10.77.0.2"}

Start = Callable[..., Awaitable[Node]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    if Path("/sys/class/infiniband/rxe1").exists():
        return
    if os.environ.get("RDMA_VM"):
        raise pytest.UsageError("the virtual machine has no RDMA devices")
    for item in items:
        if here in Path(str(item.fspath)).parents:
            item.add_marker(pytest.mark.skip(reason="NOT TESTED ON VERBS: no RDMA devices here; see 'make test-rdma'"))


def resources() -> dict[str, int]:
    """What the kernel holds on all devices: queue pairs, completion queues, regions, protection domains, contexts.

    One queue pair of each device is the kernel's own.
    """
    lines = subprocess.run(["rdma", "resource", "show"], capture_output=True, text=True, check=True).stdout.splitlines()
    found: dict[str, int] = {}
    for line in lines:
        words = line.split()
        for name, count in zip(words[2::2], words[3::2], strict=False):
            found[name] = found.get(name, 0) + int(count)
    return found


def descriptors() -> int:
    """Descriptors that this process has open."""
    return len(os.listdir("/proc/self/fd"))


def packets(device: str) -> int:
    """Packets that a device has received: what only RDMA can have moved."""
    counters = Path(f"/sys/class/infiniband/{device}/ports/1/hw_counters")
    return int((counters / "rcvd_pkts").read_text())


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts nodes on one metadata store, each with a state directory of its own."""
    server = MemoryServer()
    async with AsyncExitStack() as nodes:

        async def starter(name: str, device: str, **options: Any) -> Node:
            state = tmp_path / f"state of {name}"
            state.mkdir(exist_ok=True)
            made = await Node.start(NodeOptions(name, state=state, rdma_devices=device, **options), MemoryStore(server))
            nodes.push_async_callback(made.close)
            return made

        yield starter
