"""Every setting: its name, type, default, and how it is read from text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.net import addresses
from p2pstore.errors import BadConfig, BadName
from p2pstore.objects.choices import DEFAULT_HASH, HASHES, MAX_CHUNK_SIZE, MIN_CHUNK_SIZE
from p2pstore.objects.names import check_node_name
from p2pstore.objects.units import format_size, parse_rate, parse_size
from p2pstore.settings.key import Key, as_boolean, as_path, as_share, as_text, one_of, whole
from p2pstore.settings.master_keys import MASTER_KEYS, MASTER_PORT, METRICS_PORT

MIN_PORTS = 3
"""In a choice of ports: an agent takes three, one after the other."""


AGENT_METRICS_PORT = 9401
"""Where an agent's metrics are, if the setting names no port."""


NO_PORT = -1
"""In place of a port that was not given."""


MAX_LEASE_TTL = 3600
"""Seconds; a dead node is listed for this long at most."""


MIN_LEASE_TTL = 2
"""Seconds; etcd grants no shorter lease reliably."""


MAX_CONNECTIONS = 64
"""To one peer."""


TRANSPORTS: Mapping[str, tuple[str, ...]] = {
    "auto": ("local", "rdma", "tcp"),
    "rdma": ("rdma",),
    "tcp": ("tcp",),
    "local": ("local",),
}
"""What each choice of transport tries, the best first."""


def _node(text: str, _base: Path) -> str:
    try:
        return check_node_name(text)
    except BadName as error:
        raise ValueError(str(error)) from None


def parse_chunk_size(text: str) -> int:
    """Bytes of a chunk from text like ``4MiB``; a power of two between 1 and 64 MiB, else ``ValueError``."""
    size = parse_size(text)
    if not MIN_CHUNK_SIZE <= size <= MAX_CHUNK_SIZE or size & (size - 1):
        near = min(max(1 << max(size, 1).bit_length() - 1, MIN_CHUNK_SIZE), MAX_CHUNK_SIZE)
        near = 2 * near if 2 * near <= MAX_CHUNK_SIZE and 2 * near - size < size - near else near
        shown = format_size(near).replace(".0 ", "")
        raise ValueError(f"{text!r} is not a power of two between 1MiB and 64MiB; {shown} is the nearest")
    return size


def _chunk_size(text: str, _base: Path) -> int:
    return parse_chunk_size(text)


def _size(text: str, _base: Path) -> int:
    return parse_size(text)


def _rate(text: str, _base: Path) -> int:
    return parse_rate(text)


def parse_address(text: str, default_port: int = 0) -> tuple[str, int]:
    """``HOST``, ``HOST:PORT``, ``[V6]:PORT`` or a bare IPv6 address as host and port; else ``ValueError``."""
    return addresses.parse(text, default_port, lowest_port=0)


def _listen(text: str, base: Path) -> str:
    _, ports = addresses.parse_ports(as_text(text, base))
    if 1 < len(ports) < MIN_PORTS:
        raise ValueError(f"{text!r} has {len(ports)} ports, and an agent takes {MIN_PORTS}")
    if len(ports) == 1 and ports[0] > addresses.MAX_PORT - MIN_PORTS + 1:
        raise ValueError(
            f"an agent takes {MIN_PORTS} ports from that of {text!r} on, and {addresses.MAX_PORT} is the last"
        )
    return text


def _metrics(text: str, base: Path) -> str:
    addresses.parse_place(as_text(text, base))
    return text


def _hf_endpoint(text: str, base: Path) -> str:
    return addresses.join(*addresses.parse(as_text(text, base), lowest_port=0))


def _hf_upstream(text: str, base: Path) -> str:
    if not as_text(text, base).startswith(("http://", "https://")):
        raise ValueError(f"{text!r} is no URL; write it as https://huggingface.co")
    return text.rstrip("/")


def _advertise(text: str, base: Path) -> str:
    host, port = addresses.parse_place(as_text(text, base), NO_PORT)
    if port != NO_PORT:
        raise ValueError(f"{text!r} has a port; others are told the ports that are listened on")
    if host in addresses.WILDCARDS:
        raise ValueError(f"{text!r} stands for all addresses, and nobody can connect to it")
    return host


def _metadata(text: str, _base: Path) -> str:
    from p2pstore.metadata.urls import parse_url  # noqa: PLC0415 - most commands are given none

    try:
        return str(parse_url(text))
    except BadConfig as error:
        raise ValueError(error.fields["detail"]) from None


KEYS: Mapping[str, Key] = {
    key.name: key
    for key in (
        Key("home", as_path, "directory that holds the agent's state, sockets and log"),
        Key("metadata", _metadata, "metadata server, like etcd://a:2379,b:2379; unset: an etcd of the agent's own"),
        Key("node", _node, "this node's name; unset: the host's, and four characters"),
        Key(
            "listen",
            _listen,
            "ADDRESS, INTERFACE or NETWORK to listen on, and :PORT or :PORT-PORT",
            addresses.LOOPBACK,
        ),
        Key("advertise", _advertise, "ADDRESS, INTERFACE or NETWORK that other nodes are told, if it is another one"),
        Key("insecure", as_boolean, "listen on an open address without a cluster secret", False, plain=True),
        Key("secret_file", as_path, "file that holds the cluster secret"),
        Key("group", as_text, "group of this host that may use the agent, as its user; it needs a home of its own"),
        Key("zone", as_text, "where this node is; what is pulled crosses between zones once"),
        Key("lease_ttl", whole(MIN_LEASE_TTL, MAX_LEASE_TTL), "seconds until a dead node disappears", 10, plain=True),
        Key("transport", one_of(*TRANSPORTS), "how get moves bytes: auto, rdma, tcp or local", "auto"),
        Key("rdma_devices", as_text, "RDMA devices to use, joined by commas; all, or none", "all"),
        Key("hash", one_of(*HASHES), "chunk hash of register: xxh3_128, or blake3 for peers not trusted", DEFAULT_HASH),
        Key("chunk_size", _chunk_size, "chunk size of register; unset: by the object's size", plain=True),
        Key(
            "keep",
            as_path,
            "directory in which 'register -' and hf_endpoint keep what comes; unset: with the agent's state",
        ),
        Key(
            "hf_endpoint",
            _hf_endpoint,
            "HOST:PORT where HF_ENDPOINT finds objects; unset: nowhere",
        ),
        Key("hf_upstream", _hf_upstream, "URL of the hub that is read for what no node has; unset: none"),
        Key(
            "hf_token_file",
            as_path,
            "file with the HF_TOKEN that must be shown there; unset: this user's programs alone",
        ),
        Key("cache_quota", _size, "bytes that the replicas of gets may take, like 2TB; 0: no limit", 0, plain=True),
        Key("cache_high", as_share, "share of cache_quota above which replicas are deleted", 0.95, decimal=True),
        Key("cache_low", as_share, "share of cache_quota that they take then", 0.8, decimal=True),
        Key(
            "connections",
            whole(1, MAX_CONNECTIONS),
            "connections to each peer; unset: by the machine and what is got",
            plain=True,
        ),
        Key(
            "upload_limit",
            _rate,
            "bytes a second that this node sends to peers, like 500MB/s; 0: no limit",
            0,
            plain=True,
        ),
        Key("download_limit", _rate, "bytes a second that gets of this node receive; 0: no limit", 0, plain=True),
        Key(
            "log_size",
            _size,
            "bytes after which the background agent's log begins anew; 0: never",
            16 << 20,
            plain=True,
        ),
        Key(
            "metrics",
            _metrics,
            f"where the agent serves metrics, [HOST]:PORT (PORT {AGENT_METRICS_PORT}); unset: nowhere",
        ),
        Key("etcd_user", as_text, "etcd user"),
        Key("etcd_password_file", as_path, "file that holds the etcd user's password"),
        Key("etcd_ca", as_path, "CA certificate that etcd's is checked against"),
        Key("etcd_cert", as_path, "client certificate for etcd"),
        Key("etcd_key", as_path, "key of the client certificate"),
        Key("master", as_text, "address of the store's master, HOST:PORT", f"{addresses.LOOPBACK}:{MASTER_PORT}"),
        Key("master_admin", as_text, f"its metrics port; unset: the master's host and port {METRICS_PORT}"),
        Key("tenant_id", as_text, "whose keys are meant, where a master keeps tenants apart", "default"),
        *MASTER_KEYS,
    )
}


UPSTREAMS_TOO = frozenset({"MOONCAKE_MASTER", "MOONCAKE_TENANT_ID"})
"""Variables of ours that upstream's programs read, too. One that is empty is none to them, and so it is to us."""


SECRETS: Mapping[str, tuple[str, str]] = {
    "secret": ("MOONCAKE_SECRET", "secret_file"),
    "etcd_password": ("MOONCAKE_ETCD_PASSWORD", "etcd_password_file"),
}
"""Each secret's environment variable, and the key that names its file."""
