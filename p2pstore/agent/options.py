"""From settings to a node's options, for the agent and for whoever starts a node in another way."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from engine.etcd.credentials import EtcdCredentials
from engine.net import addresses
from engine.net.listening import address_of
from engine.net.sockets import is_loopback
from p2pstore.agent.home import Home, state_directory
from p2pstore.agent.own_secret import OWN_FILE, own_secret
from p2pstore.errors import BadConfig, NoHome
from p2pstore.node_options import NodeOptions
from p2pstore.settings.settings import Settings

MAX_HOST_PART = 200
"""Characters of the host's name in a node's."""


def node_name() -> str:
    """A name for a node that was given none: the host's, and a few characters that tell nodes on one host apart."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:MAX_HOST_PART]
    return f"{host or 'node'}-{os.urandom(2).hex()}"


def remembered_name(home: Home) -> str:
    """The name that the node of this home had before, or a new one."""
    file = home.state / "node-name"
    try:
        return file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        name = node_name()
        file.write_text(name + "\n", encoding="ascii")
        return name


def secret_for(
    host: str, given: bytes | Path | None, *, insecure: bool, fallback: Path | None = None
) -> bytes | Path | None:
    """The secret of a node that listens on ``host``: what was ``given``, else on loopback the user's own.

    None for one that needs none since it is ``insecure``, and for one that must be given one. Raises ``NoSuchAddress``
    and ``StorageError``.
    """
    if given is not None or insecure or not is_loopback(address_of(host)):
        return given
    return own_secret(fallback)


def node_options(home: Home, settings: Settings) -> NodeOptions:
    """The options of the node that lives in ``home``. Raises ``BadConfig`` for settings that do not fit together."""
    if settings.cache_low > settings.cache_high:
        said = f"{settings.cache_low:g} is above cache_high, which is {settings.cache_high:g}"
        raise BadConfig(origin=f"cache_low, {settings.origins['cache_low']}", detail=said)
    host, ports = addresses.given_ports(settings.listen)
    return NodeOptions(
        name=settings.node or remembered_name(home),
        state=home.state,
        local_socket=home.local_socket,
        keep=settings.keep,
        host=host,
        port=ports.start,
        last_port=ports.stop - 1,
        advertise=settings.advertise or "",
        secret=secret_for(host, settings.secret_source, insecure=settings.insecure, fallback=home.root),
        insecure=settings.insecure,
        zone=settings.zone or "",
        ttl=settings.lease_ttl,
        connections=settings.connections or 0,
        upload_limit=settings.upload_limit,
        download_limit=settings.download_limit,
        rdma_devices=settings.rdma_devices,
        cache_quota=settings.cache_quota,
        cache_high=settings.cache_high,
        cache_low=settings.cache_low,
        private=tuple(private_paths(home, settings)),
    )


def private_paths(home: Home, settings: Settings) -> Iterator[Path]:
    """What is never registered: an agent's own directories, and files with secrets."""
    directories = [home.root]
    with contextlib.suppress(NoHome):
        directories.append(state_directory(os.environ))
    for directory in directories:
        yield directory
        yield directory / OWN_FILE
    for file in (settings.secret_file, settings.hf_token_file, settings.etcd_password_file, settings.etcd_key):
        if file is not None:
            yield file


def credentials(settings: Settings) -> EtcdCredentials:
    """Who we are to etcd, by the settings."""
    return EtcdCredentials(
        user=settings.etcd_user or "",
        password=settings.etcd_password or "",
        password_file=settings.etcd_password_source,
        ca=str(settings.etcd_ca or ""),
        cert=str(settings.etcd_cert or ""),
        key=str(settings.etcd_key or ""),
    )
