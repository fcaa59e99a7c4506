"""What upstream's own configuration, ``mooncake.json`` and its variables, means for our settings.

A machine that runs Mooncake has said already where etcd is, under which name others reach the machine, and by which
protocol to move bytes. That counts here too, below what was said to us in the same way: its variables below
``MOONCAKE_<KEY>`` (and above our files), ``mooncake.json`` below our files.

::

    metadata_server of etcd                   -> metadata     (other servers hold no records of ours)
    MC_TCP_BIND_ADDRESS, local_hostname       -> advertise    (where the agent listens on more than loopback)
    MC_FORCE_TCP, protocol                    -> transport    (tcp; rdma: auto, which takes what works)
    MC_TCP_LANES_PER_PEER                     -> connections
    MOONCAKE_DEVICE, device_name              -> rdma_devices
    master_server_address, tenant_id          -> master, tenant_id
                                                 (MOONCAKE_MASTER, MOONCAKE_TENANT_ID are its variables and ours)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config.settings import EngineSettings
from engine.net.addresses import WILDCARDS, BadAddress, parse
from engine.net.sockets import is_loopback

log = logging.getLogger(__name__)

PROTOCOLS = {"tcp": "tcp", "rdma": "auto"}
"""Upstream's protocol to our transport."""


@dataclass(frozen=True)
class Given:
    """One setting as upstream's configuration gives it: our key, its text, and where it came from."""

    key: str
    text: str
    origin: str

    @property
    def by_environment(self) -> bool:
        """Whether a variable says so, and not the file."""
        return self.origin.startswith("environment ")


def upstream_settings(environ: Mapping[str, str], cwd: Path) -> tuple[list[Given], Sequence[tuple[str, str]]]:
    """What upstream's configuration says to us, and what of it is ignored, and why. Raises ``BadConfig``."""
    settings = EngineSettings.load(environ, cwd=cwd)
    return translate(settings), settings.ignored


def translate(settings: EngineSettings) -> list[Given]:
    """The engine's settings as ours; at most one a key."""
    found: list[Given] = []

    def add(key: str, text: str, field: str) -> None:
        found.append(Given(key, text, settings.origins[field]))

    server = settings.metadata_server or ""
    if server.startswith(("etcd://", "etcds://")):
        add("metadata", server, "metadata_server")
    elif server:
        log.debug("%s: %s holds no records of ours", settings.origins["metadata_server"], server)
    for field, text in (("advertise", settings.advertise), ("local_hostname", settings.local_hostname)):
        host = host_of(text or "")
        if host and host not in WILDCARDS and (field == "advertise" or not is_loopback(host)):
            add("advertise", host, field)
            break
    protocol = (settings.protocol or "").lower()
    if settings.force_tcp:
        add("transport", "tcp", "force_tcp")
    elif protocol in PROTOCOLS:
        add("transport", PROTOCOLS[protocol], "protocol")
    elif protocol:
        log.debug("%s: there is no transport %r", settings.origins["protocol"], protocol)
    fields = {"rdma_devices": "device_name", "connections": "lanes"}
    return (
        found
        + _of_store(settings)
        + [
            Given(key, str(getattr(settings, field)), settings.origins[field])
            for key, field in fields.items()
            if field in settings.origins
        ]
    )


def _of_store(settings: EngineSettings) -> list[Given]:
    """What ``mooncake.json`` says of the store's master."""
    file = settings.file
    said = () if file is None else (("master", "master_server_address"), ("tenant_id", "tenant_id"))
    found = [(key, name, getattr(file, name)) for key, name in said]
    return [Given(key, text, f"{file.file}, {name}") for key, name, text in found if file is not None and text]


def host_of(name: str) -> str:
    """The host of upstream's ``HOST`` or ``HOST:PORT``; its port is that of its own handshake."""
    try:
        return parse(name, 0)[0]
    except BadAddress:
        return name  # what it is taken for will say what is wrong with it
