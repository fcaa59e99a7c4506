"""Every setting: its name, type, default, and how it is read from text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config.layers import absolute
from engine.net import addresses
from p2pstore.errors import BadConfig, BadName
from p2pstore.objects.choices import DEFAULT_HASH, HASHES, MAX_CHUNK_SIZE, MIN_CHUNK_SIZE
from p2pstore.objects.names import check_node_name
from p2pstore.objects.units import format_size, parse_rate, parse_size

ENVIRONMENT_PREFIX = "MOONCAKE_"


MIN_PORTS = 3
"""In a choice of ports: an agent takes three, one after the other."""


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


@dataclass(frozen=True)
class Key:
    """One setting: how its text is understood, what it is for, and its default.

    ``parse`` gets the text (of a flag, the environment or a file) and the directory that relative paths start from; it
    raises ``ValueError`` with a sentence of its own.
    """

    name: str
    parse: Callable[[str, Path], Any]
    help: str
    default: Any = None

    def read(self, value: object, base: Path) -> Any:
        """What a value of a file, a flag or a variable means. Raises ``ValueError``, whose words say what is wrong."""
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, (int, Path)):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError(f"a {type(value).__name__} cannot be {self.name}")  # noqa: TRY004 - as the parsers
        return self.parse(value, base)

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def option(self) -> str:
        """The command line option, where there is one."""
        return "--" + self.name.replace("_", "-")


def _text(text: str, _base: Path) -> str:
    if not text.strip() or "\0" in text:
        raise ValueError("it is empty" if not text.strip() else "it has a NUL")
    return text


def _path(text: str, base: Path) -> Path:
    _text(text, base)
    return absolute(text, base)


def _boolean(text: str, _base: Path) -> bool:
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off", ""}:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def _integer(low: int, high: int) -> Callable[[str, Path], int]:
    def parse(text: str, _base: Path) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"{value} is not between {low} and {high}")
        return value

    return parse


def _choice(*allowed: str) -> Callable[[str, Path], str]:
    def parse(text: str, _base: Path) -> str:
        if text not in allowed:
            raise ValueError(f"{text!r} is none of {', '.join(allowed)}")
        return text

    return parse


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


def _rate(text: str, _base: Path) -> int:
    return parse_rate(text)


def parse_address(text: str, default_port: int = 0) -> tuple[str, int]:
    """``HOST``, ``HOST:PORT``, ``[V6]:PORT`` or a bare IPv6 address as host and port; else ``ValueError``."""
    return addresses.parse(text, default_port, lowest_port=0)


def _listen(text: str, base: Path) -> str:
    _, ports = addresses.parse_ports(_text(text, base))
    if 1 < len(ports) < MIN_PORTS:
        raise ValueError(f"{text!r} has {len(ports)} ports, and an agent takes {MIN_PORTS}")
    if len(ports) == 1 and ports[0] > addresses.MAX_PORT - MIN_PORTS + 1:
        raise ValueError(
            f"an agent takes {MIN_PORTS} ports from that of {text!r} on, and {addresses.MAX_PORT} is the last"
        )
    return text


def _advertise(text: str, base: Path) -> str:
    host, port = addresses.parse_place(_text(text, base), NO_PORT)
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
        Key("home", _path, "directory that holds the agent's state, sockets and log"),
        Key("metadata", _metadata, "metadata server, like etcd://a:2379,b:2379; unset: an etcd of the agent's own"),
        Key("node", _node, "this node's name; unset: the host's, and four characters"),
        Key(
            "listen",
            _listen,
            "ADDRESS, INTERFACE or NETWORK to listen on, and :PORT or :PORT-PORT",
            addresses.LOOPBACK,
        ),
        Key("advertise", _advertise, "ADDRESS, INTERFACE or NETWORK that other nodes are told, if it is another one"),
        Key("insecure", _boolean, "listen on an open address without a cluster secret", default=False),
        Key("secret_file", _path, "file that holds the cluster secret"),
        Key("group", _text, "group of this host that may use the agent, as its user; it needs a home of its own"),
        Key("zone", _text, "where this node is; peers of the same zone are asked first"),
        Key("lease_ttl", _integer(MIN_LEASE_TTL, MAX_LEASE_TTL), "seconds until a dead node disappears", 10),
        Key("transport", _choice(*TRANSPORTS), "how get moves bytes: auto, rdma, tcp or local", "auto"),
        Key("rdma_devices", _text, "RDMA devices to use, joined by commas; all, or none", "all"),
        Key(
            "hash", _choice(*HASHES), "chunk hash of register: xxh3_128, or blake3 for peers not trusted", DEFAULT_HASH
        ),
        Key("chunk_size", _chunk_size, "chunk size of register; unset: by the object's size"),
        Key("connections", _integer(1, MAX_CONNECTIONS), "connections to each peer", 2),
        Key("upload_limit", _rate, "bytes a second that this node sends to peers, like 500MB/s; 0: no limit", 0),
        Key("download_limit", _rate, "bytes a second that gets of this node receive; 0: no limit", 0),
        Key("etcd_user", _text, "etcd user"),
        Key("etcd_password_file", _path, "file that holds the etcd user's password"),
        Key("etcd_ca", _path, "CA certificate that etcd's is checked against"),
        Key("etcd_cert", _path, "client certificate for etcd"),
        Key("etcd_key", _path, "key of the client certificate"),
    )
}


SECRETS: Mapping[str, tuple[str, str]] = {
    "secret": ("MOONCAKE_SECRET", "secret_file"),
    "etcd_password": ("MOONCAKE_ETCD_PASSWORD", "etcd_password_file"),
}
"""Each secret's environment variable, and the key that names its file."""
