"""What ``setup`` of the compatible class is told, by place or in a dictionary, under any of the names in use."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engine.metadata.handshake import URL as P2PHANDSHAKE
from engine.rpc.messages import DEFAULT_TENANT
from p2pstore.errors import UsageError
from p2pstore.kv.client.options import DEFAULT_SEGMENT, DISK_LIMIT

DEFAULT_MASTER = "127.0.0.1:50051"

OTHER_NAMES = {
    "master_server_address": "master_server_addr",
    "mooncake_master_server_addr": "master_server_addr",
    "mooncake_master_server_address": "master_server_addr",
    "device_name": "rdma_devices",
    "rdma_device": "rdma_devices",
    "device_names": "rdma_devices",
    "master": "master_server_addr",
}
"""Names that programs give a setting, which upstream's own client passes over in silence."""

NO_MEANING = frozenset(
    {
        "ipc_socket_path", "enable_client_http_server", "client_http_port", "engine",
    }
)  # fmt: skip
"""Settings of upstream's client that do nothing in this one."""

DISK = "MOONCAKE_OFFLOAD_FILE_STORAGE_PATH"
DISK_SIZE = "MOONCAKE_OFFLOAD_TOTAL_SIZE_LIMIT_BYTES"
"""Upstream's variables for the directory of values on disk, where ``setup`` names none, and for their bytes."""

ALIKE = 0.75
"""How much an unknown name must look like a known one to be taken for a slip, of 1."""

_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]?)b?\s*", re.IGNORECASE)


class Setup(NamedTuple):
    """The settings that count, and names that nobody knows."""

    local_hostname: str
    metadata_server: str
    global_segment_size: int = DEFAULT_SEGMENT
    local_buffer_size: int = DEFAULT_SEGMENT
    protocol: str = "tcp"
    rdma_devices: str = ""
    master_server_addr: str = DEFAULT_MASTER
    tenant_id: str = DEFAULT_TENANT
    ignored: tuple[str, ...] = ()
    enable_ssd_offload: bool = False
    ssd_offload_path: str = ""

    @property
    def disk(self) -> Path | None:
        """Where values are kept on disk; None where they are not."""
        return Path(self.ssd_offload_path) if self.enable_ssd_offload else None

    @property
    def disk_limit(self) -> int:
        """Bytes of values there. Raises ``UsageError``."""
        return size(DISK_SIZE, os.environ.get(DISK_SIZE) or DISK_LIMIT)


KNOWN = tuple(name for name in Setup._fields if name != "ignored")


def understood(config: Mapping[str, Any]) -> Setup:
    """The settings of a dictionary. Raises ``UsageError``: for what is missing, contradicts itself, or is a slip."""
    values: dict[str, Any] = {}
    said: dict[str, str] = {}
    ignored: list[str] = []
    for name, value in config.items():
        meant = OTHER_NAMES.get(str(name), str(name))
        if meant not in KNOWN:
            if _counts(meant, value):
                ignored.append(meant)
            continue
        if meant in values and values[meant] != value:
            detail = f"setup is told both {said[meant]}={values[meant]!r} and {name}={value!r}"
            raise UsageError(detail=detail)
        values[meant], said[meant] = value, str(name)
    for name in ("local_hostname", "metadata_server"):
        if not values.get(name):
            raise UsageError(detail=f"setup needs {name!r}")
    for name in ("global_segment_size", "local_buffer_size"):
        if name in values:
            values[name] = size(name, values[name])
    texts = {name: str(value) for name, value in values.items() if not name.endswith(("_size", "_offload"))}
    made = _with_disk(Setup(**{**values, **texts}, ignored=tuple(ignored)))
    return made._replace(
        metadata_server=P2PHANDSHAKE if made.metadata_server == P2PHANDSHAKE else made.metadata_server,
        master_server_addr=made.master_server_addr or DEFAULT_MASTER,
        tenant_id=made.tenant_id or DEFAULT_TENANT,
        rdma_devices="" if made.rdma_devices == "auto-discovery" else made.rdma_devices,
    )


def _with_disk(made: Setup) -> Setup:
    """Raises ``UsageError``."""
    on = _switch("enable_ssd_offload", made.enable_ssd_offload)
    path = made.ssd_offload_path or os.environ.get(DISK, "")
    if on and not path:
        raise UsageError(detail=f"enable_ssd_offload needs a directory: give ssd_offload_path, or set {DISK}")
    return made._replace(enable_ssd_offload=on, ssd_offload_path=path)


def _switch(name: str, value: object) -> bool:
    """Raises ``UsageError``."""
    text = str(value).strip().lower()
    if text not in {"", "0", "false", "no", "none", "1", "true", "yes"}:
        raise UsageError(detail=f"{name}: {value!r} is neither true nor false")
    return text in {"1", "true", "yes"}


def _counts(name: str, value: object) -> bool:
    """Whether somebody should hear that a setting does nothing here. Raises ``UsageError`` for a slip."""
    if name in NO_MEANING:
        return name != "client_http_port" and str(value).lower() not in {"", "0", "false", "none"}
    alike = difflib.get_close_matches(name, [*KNOWN, *OTHER_NAMES], 1, ALIKE)
    if alike:
        raise UsageError(detail=f"setup knows no {name!r}; did you mean {alike[0]!r}?")
    return True


def size(name: str, value: Any) -> int:
    """Bytes of ``16777216``, ``"16mb"`` or ``"1.5 GB"``, all units binary as upstream's are. Raises ``UsageError``."""
    if isinstance(value, int) and value >= 0:
        return value
    match = _SIZE.fullmatch(str(value))
    if match is None:
        raise UsageError(detail=f"{name}: {value!r} is not a size; write it like 16MB or 16777216")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))
