"""Mooncake's own engine out of upstream's wheel, which is no dependency: it is imported by name, where it is asked for.

It logs and holds threads of its own, so it lives in processes that do nothing else.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from typing import Any

from engine.bench.memory import Memory
from engine.errors import BenchFailed, TransportUnavailable

MODULE = "mooncake.engine"

ENVIRONMENT = {
    "MC_FORCE_TCP": "1",
    "MC_TCP_ENABLE_CONNECTION_POOL": "1",
    "MC_TCP_SLICE_SIZE": "1048576",
    "GLOG_minloglevel": "2",
}
"""What it is fastest with over TCP, as measured (``docs/performance.md``). A variable that is set stays as it is."""


def load(
    memory: Memory,
    local_hostname: str,
    host: str,
    metadata_server: str,
    protocol: str = "tcp",
    device: str = "",
) -> tuple[Any, int]:
    """Its ``TransferEngine`` with ``memory`` registered, and the memory's address.

    Raises ``TransportUnavailable`` where the wheel does not load, and ``BenchFailed`` where it does not start.
    """
    for name, value in {**ENVIRONMENT, "MC_TCP_BIND_ADDRESS": host}.items():
        if protocol == "tcp" or name != "MC_FORCE_TCP":
            os.environ.setdefault(name, value)
    try:
        module = importlib.import_module(MODULE)
    except ImportError as error:
        raise TransportUnavailable(transport="mooncake", detail=f"its wheel does not load: {error}") from None
    engine = module.TransferEngine()
    if engine.initialize(local_hostname, metadata_server, protocol, device):
        raise BenchFailed(role="mooncake", detail="its engine does not initialize")
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory.map))
    if engine.register_memory(address, memory.length):
        raise BenchFailed(role="mooncake", detail=f"its engine does not register {memory.length} bytes")
    return engine, address


def check(code: int) -> None:
    """Raise ``BenchFailed`` for what a transfer returned, unless that is 0."""
    if code:
        raise BenchFailed(role="mooncake", detail=f"its transfer returned {code}")


def version() -> str:
    """The version of the wheel that is installed; empty where none is."""
    from importlib import metadata  # noqa: PLC0415 - it costs more than all else here

    owners = metadata.packages_distributions().get("mooncake") or ()
    return metadata.version(owners[0]) if owners else ""
