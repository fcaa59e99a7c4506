"""Upstream's ``MC_*`` variables: which have a meaning here, what it is, and why the others have none.

The table is what ``engine.config.settings`` reads and what ``docs/environment.md`` is generated from. Ranges and
defaults are those of upstream's ``config.cpp`` and ``tcp_transport.cpp``, unless a default is ours, which is then said.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG_PATH = "MOONCAKE_CONFIG_PATH"
"""The variable that names ``mooncake.json``."""

_WHOLE = re.compile("-?[0-9]{1,40}")
"""A whole number; more digits than any bound has are none."""


@dataclass(frozen=True)
class Variable:
    """One variable. ``field`` is that of ``EngineSettings`` which it sets; empty where there is none.

    ``group`` is the heading that it stands under. ``parse`` turns its text into the field's value, or raises
    ``ValueError`` with a sentence. ``used`` marks one that is read where it is needed instead. ``says`` is what it does
    here, or why it is ignored.
    """

    name: str
    group: str
    says: str
    field: str = ""
    parse: Callable[[str], Any] = str
    used: bool = False

    @property
    def honoured(self) -> bool:
        """Whether it has an effect here."""
        return self.used or bool(self.field)


def integer(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers between two bounds."""

    def parse(text: str) -> int:
        if not _WHOLE.fullmatch(text.strip()):
            raise ValueError(f"{text!r} is not a whole number")
        value = int(text)
        if not low <= value <= high:
            raise ValueError(f"{value} is not between {low} and {high}")
        return value

    return parse


def seconds(low: float, high: float) -> Callable[[str], float]:
    """A parser of whole seconds."""
    whole = integer(int(low), int(high))
    return lambda text: float(whole(text))


def given(_: str) -> bool:
    """Set to anything is on: so upstream reads its switches."""
    return True


def address(text: str) -> str:
    """An IP address, as upstream demands it here."""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise ValueError(f"{text!r} is no IP address") from None


def log_level(text: str) -> str:
    """Upstream's level under Python's name."""
    level = {"TRACE": "DEBUG", "INFO": "INFO", "WARNING": "WARNING", "ERROR": "ERROR"}.get(text.strip().upper())
    if level is None:
        raise ValueError(f"{text!r} is none of TRACE, INFO, WARNING, ERROR")
    return level


def protocol_version(text: str) -> int:
    """1 holds back version 2; upstream takes any other value for no wish at all."""
    return 1 if text.strip() == "1" else 2


def gid_index(text: str) -> int | None:
    """An index, or None where upstream's -1 says that it is to be found."""
    value = integer(-1, 65535)(text)
    return value if value >= 0 else None


def mtu(text: str) -> int:
    """One of the verbs' MTUs, bytes."""
    value = integer(512, 4096)(text)
    if value not in {512, 1024, 2048, 4096}:
        raise ValueError(f"{value} is none of 512, 1024, 2048, 4096")
    return value


def cluster(text: str) -> str:
    """One part of a key."""
    if "/" in text.strip("/") or not text.strip("/"):
        raise ValueError(f"{text!r} is no single part of a key")
    return text.strip("/")


MAX_PORT = 65535
MAX_SLICE_SIZE = 1 << 40
"""Bytes; one request has no more."""
MAX_TIMEOUT = 3599
"""Seconds, of every timeout here; upstream's own bound."""

_SAME_PORT = "RDMA connections are set up through the handshake's port"
_ONE_PIECE = "each work request moves one piece, and none is inlined"
_OWN_QUEUE = "each connection has a completion queue of its own, of the size that it needs"
_NO_QUEUE = "a transfer waits for a free connection; there is no queue whose length could be bounded"
_HARDWARE = "there is no such transport"

VARIABLES: tuple[Variable, ...] = (
    Variable(
        "MC_TCP_BIND_ADDRESS",
        "control",
        "the address that peers are told; sets the store's `advertise` where the agent listens on more than loopback",
        "advertise",
        address,
    ),
    Variable("MC_MIN_RPC_PORT", "control", "first of the ports that a TransferEngine takes; unset: any free port",
             "min_port", integer(1, MAX_PORT)),
    Variable("MC_MAX_RPC_PORT", "control", "last of them; the agent's ports are those of --listen",
             "max_port", integer(1, MAX_PORT)),
    Variable("MC_HANDSHAKE_PORT", "control", "ports are chosen between MC_MIN_RPC_PORT and MC_MAX_RPC_PORT"),
    Variable(
        "MC_HANDSHAKE_CONNECT_TIMEOUT",
        "control",
        "seconds to connect to a peer, 5 by default",
        "connect_timeout",
        seconds(1, MAX_TIMEOUT),
    ),
    Variable("MC_HANDSHAKE_LISTEN_BACKLOG", "control", "the backlog is 1024, larger than upstream's"),
    Variable("MC_HANDSHAKE_MAX_LENGTH", "control", "messages are bounded at upstream's default, 1 MiB"),
    Variable("MC_LEGACY_RPC_PORT_BINDING", "control", "a port is bound before it is told to anybody"),
    Variable("MC_RDMA_BIND_ADDRESS", "control", _SAME_PORT),
    Variable("MC_USE_IPV6", "control", "listening on :: takes both; name an address with --listen or --advertise"),
    Variable(
        "MC_TCP_LANES_PER_PEER",
        "TCP",
        "connections to each peer, 4 by default; sets the store's `connections`, too, which else chooses",
        "lanes",
        integer(1, 16),
    ),
    Variable("MC_TCP_ENABLE_CONNECTION_POOL", "TCP", "connections are always kept for the next request"),
    Variable("MC_TCP_MAX_QUEUED_TRANSFERS_PER_PEER", "TCP", _NO_QUEUE),
    Variable("MC_TCP_MAX_PENDING_ADMISSIONS_PER_PEER", "TCP", _NO_QUEUE),
    Variable("MC_TCP_ADMISSION_TIMEOUT_MS", "TCP", _NO_QUEUE),
    Variable("MC_TCP_SLICE_SIZE", "TCP", "pieces of a request are cut by MC_SLICE_SIZE"),
    Variable(
        "MC_TCP_STATUS_TIMEOUT_SEC",
        "TCP",
        "seconds without a byte after which a peer counts as stalled, 30 by default; the store's gets have 20",
        "stall_timeout",
        seconds(1, MAX_TIMEOUT),
    ),
    Variable(
        "MC_TCP_PROTO",
        "TCP",
        "1: speak version 1 to every peer, and tell peers of no other",
        "protocol_version",
        protocol_version,
    ),
    Variable("MC_FORCE_TCP", "select", "set to anything: sets `transport` to tcp", "force_tcp", given),
    Variable("MC_FORCE_HCA", "select", "`--transport rdma` takes RDMA and nothing else"),
    Variable("MC_FORCE_MNNVL", "select", _HARDWARE),
    Variable("MC_INTRANODE_NVLINK", "select", _HARDWARE),
    Variable("MC_INTRA_NVLINK", "select", _HARDWARE),
    Variable("MC_USE_TENT", "select", "there is one engine"),
    Variable("MC_TENT_CONF", "select", "there is one engine"),
    Variable(
        "MC_CUSTOM_TOPO_JSON",
        "select",
        "file of the priority matrix that `mooncake topology` shows, unless --nic-priority-matrix names another",
        "topology_file",
        Path,
    ),
    Variable(
        "MC_SLICE_SIZE",
        "transfer",
        "bytes of a piece of a request, which one connection moves; 1 MiB by default (upstream: 64 KiB)",
        "slice_size",
        integer(1, MAX_SLICE_SIZE),
    ),
    Variable("MC_FRAGMENT_RATIO", "transfer", "the last piece of a request is as long as it is"),
    Variable(
        "MC_RETRY_CNT",
        "transfer",
        "further attempts at a failed piece, 9 by default; the store's gets turn to other peers instead",
        "retries",
        integer(1, 127),
    ),
    Variable("MC_SLICE_TIMEOUT", "transfer", "MC_TCP_STATUS_TIMEOUT_SEC bounds the wait for a peer"),
    Variable("MC_TRANSFER_TIMEOUT", "transfer", "a transfer may take as long as bytes arrive"),
    Variable("MC_PATH_ROUNDROBIN", "transfer", "cards that reach a peer equally well always take turns"),
    Variable("MC_CONN_PAUSE_TTL_MS", "transfer", "a peer that failed waits for a time that doubles"),
    Variable(
        "MC_METADATA_CLUSTER_ID",
        "metadata",
        "part of the keys of segments, as upstream's; the store's own keys do not have it",
        "cluster",
        cluster,
    ),
    Variable("MC_REDIS_USERNAME", "metadata", "user for segments in redis://", "redis_username"),
    Variable("MC_REDIS_PASSWORD", "metadata", "password for segments in redis://", "redis_password"),
    Variable("MC_REDIS_DB_INDEX", "metadata", "database for segments in redis://", "redis_db", integer(0, 255)),
    Variable("MC_DISABLE_METACACHE", "metadata", "a descriptor is read again when a connection fails"),
    Variable(
        "MC_TE_METADATA_REFRESH_INTERVAL_SECONDS", "metadata", "a descriptor is read again when a connection fails"
    ),
    Variable(
        "MC_LOG_LEVEL",
        "observe",
        "the agent's log level (TRACE, INFO, WARNING, ERROR), unless MOONCAKE_LOG_LEVEL says another",
        "log_level",
        log_level,
    ),
    Variable("MC_LOG_DIR", "observe", "the agent's log is in its home: `mooncake node logs`"),
    Variable("MC_TE_METRIC", "observe", "`mooncake node status` tells what was served"),
    Variable("MC_TE_METRIC_INTERVAL_SECONDS", "observe", "`mooncake node status` tells what was served"),
    Variable("MC_IB_PORT", "RDMA", "port of every device, 1 by default", "ib_port", integer(1, 255)),
    Variable(
        "NCCL_IB_GID_INDEX",
        "RDMA",
        "as MC_GID_INDEX, which wins",
        "gid_index",
        gid_index,
    ),
    Variable(
        "MC_GID_INDEX",
        "RDMA",
        "index of the GID on every device; unset: RoCE v2 before v1, IPv4 before IPv6",
        "gid_index",
        gid_index,
    ),
    Variable("MC_PKEY_INDEX", "RDMA", "index of the partition key, 0 by default", "pkey_index", integer(0, 65535)),
    Variable("MC_MTU", "RDMA", "largest MTU: 512, 1024, 2048 or 4096 (the default), bytes", "mtu", mtu),
    Variable("MC_IB_TC", "RDMA", "traffic class, 0 by default", "traffic_class", integer(-1, 255)),
    Variable("MC_IB_SL", "RDMA", "service level, 0 by default", "service_level", integer(-1, 15)),
    Variable(
        "MC_NUM_QP_PER_EP",
        "RDMA",
        "queue pairs of a connection for each pair of devices, 2 by default",
        "queue_pairs",
        integer(1, 256),
    ),
    Variable("MC_MAX_WR", "RDMA", "work requests under way on a queue pair, 256 by default", "queue_depth",
             integer(1, 4096)),
    Variable("MC_IB_PCI_RELAXED_ORDERING", "RDMA", "registrations ask for no optional access"),
    Variable("MC_MAX_MR_SIZE", "RDMA", "the store registers 16 MiB at a time, an engine what the device takes"),
    Variable("MC_ENABLE_PARALLEL_REG_MR", "RDMA", "memory is registered when it is first asked for"),
    Variable("MC_MAX_SGE", "RDMA", _ONE_PIECE),
    Variable("MC_MAX_INLINE", "RDMA", _ONE_PIECE),
    Variable("MC_NUM_CQ_PER_CTX", "RDMA", _OWN_QUEUE),
    Variable("MC_MAX_CQE_PER_CTX", "RDMA", _OWN_QUEUE),
    Variable("MC_WORKERS_PER_CTX", "RDMA", _OWN_QUEUE),
    Variable("MC_MAX_EP_PER_CTX", "RDMA", "connections of peers are bounded at 256"),
    Variable("MC_ENDPOINT_STORE_TYPE", "RDMA", "a connection ends with its transfer, or makes room as the oldest"),
)  # fmt: skip
"""Every variable of upstream's documentation and of its transfer engine's table."""

PROGRAM_VARIABLES: tuple[Variable, ...] = (
    Variable(CONFIG_PATH, "program", "names `mooncake.json`; see below", used=True),
    Variable("MOONCAKE_TE_META_DATA_SERVER", "program", "as `metadata_server` of mooncake.json", "metadata_server"),
    Variable("MOONCAKE_LOCAL_HOSTNAME", "program", "as `local_hostname` of mooncake.json", "local_hostname"),
    Variable("MOONCAKE_PROTOCOL", "program", "as `protocol` of mooncake.json", "protocol"),
    Variable("MOONCAKE_DEVICE", "program", "as `device_name` of mooncake.json", "device_name"),
    Variable("MOONCAKE_MASTER", "program", "the address of Mooncake Store's master: our setting `master`", used=True),
    Variable("MOONCAKE_GLOBAL_SEGMENT_SIZE", "program", "Mooncake Store's"),
    Variable("MOONCAKE_LOCAL_BUFFER_SIZE", "program", "Mooncake Store's"),
    Variable("MOONCAKE_OFFLOAD_ENABLED", "program", "Mooncake Store's"),
    Variable("MOONCAKE_OFFLOAD_FILE_STORAGE_PATH", "program", "Mooncake Store's"),
    Variable("MOONCAKE_TENANT_ID", "program", "whose keys are meant: our setting `tenant_id`", used=True),
)
"""What upstream's Python programs read instead of mooncake.json."""

_NAMES = frozenset({CONFIG_PATH, *(each.name for each in (*PROGRAM_VARIABLES, *VARIABLES) if each.field)})


def concerns(environ: Mapping[str, str]) -> bool:
    """Whether an environment says anything to the engine. Cheap: no more than this module is needed to know."""
    return any(name in environ for name in _NAMES)
