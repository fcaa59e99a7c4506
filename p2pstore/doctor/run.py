"""The whole examination, one check after another as they are done."""

from __future__ import annotations

import os
from collections.abc import Iterator

from engine.etcd.credentials import EtcdCredentials
from p2pstore.agent.client import AgentClient
from p2pstore.agent.embedded_etcd import find_etcd
from p2pstore.agent.home import Home
from p2pstore.agent.surroundings import differences, surroundings
from p2pstore.doctor.homes import check_home
from p2pstore.doctor.loopback import check_transports
from p2pstore.doctor.machine import (
    check_clock,
    check_devices,
    check_limits,
    check_place,
    check_ports,
    check_published,
    check_verbs,
    look_for_devices,
)
from p2pstore.doctor.metadata import check_metadata
from p2pstore.doctor.tasks import check_tasks
from p2pstore.errors import AgentEnded, AgentNotRunning, MooncakeError, from_wire
from p2pstore.metadata.urls import servers_of
from p2pstore.peers.checks import Check, check_of, failed, ok, warning
from p2pstore.settings.settings import Settings

RESTART = "to have it as this shell has it, run 'mooncake node stop', and 'mooncake node start' here"
"""What to do about an agent that was started elsewhere, or before something changed."""


def examine(home: Home, settings: Settings, credentials: EtcdCredentials, peer: str | None) -> Iterator[Check]:
    """Look at the agent of ``home``, its metadata server, this machine, and the ways to ``peer``."""
    client = AgentClient(home)
    status: dict[str, object] | None = None
    try:
        status = client.status()
        yield ok(
            "agent", f"node {status['node']}, pid {status['pid']}, version {status['version']}, home {status['home']}"
        )
        yield ok("ports", f"control {status['control']}, handshake {status['rpc']}, data {status['data']}")
        for difference in differences(status.get("process"), surroundings()):
            yield warning("agent's surroundings", difference, RESTART)
        yield from check_published(_texts(status.get("warnings")))
        if not status.get("metadata_ok", True):
            yield _membership(status.get("metadata_fault"))
        yield from check_tasks(status.get("tasks"))
    except AgentEnded as error:
        yield failed("agent", str(error), error.hint, error.exit_code)
    except AgentNotRunning:
        yield from check_ports(settings.listen)
        yield from _place(settings)
        yield warning(
            "agent", f"none runs for {home.root}", "run 'mooncake node start'; 'register' and 'get' do it, too"
        )
    except MooncakeError as error:
        yield failed("agent", str(error), error.hint, error.exit_code)
    own = bool(status.get("embedded_etcd")) if status else not settings.metadata
    yield from check_home(home, etcd=own, writes=status is None)
    url = settings.metadata or (str(status["metadata"]) if status else "")
    try:
        if url:
            yield from check_metadata(url, credentials, own=bool(status and own and url == status["metadata"]))
        else:
            yield ok("metadata server", f"none is configured: an agent starts an etcd of its own, {find_etcd()}")
    except MooncakeError as error:
        yield failed("metadata server", str(error), error.hint, error.exit_code)
    yield from _machine(status)
    if peer is not None:
        yield from _peer(client, peer)


def _place(settings: Settings) -> Iterator[Check]:
    try:
        servers = servers_of(settings.metadata) if settings.metadata else []
    except MooncakeError:
        return  # the check of the metadata server says so
    yield from check_place(settings.listen, settings.advertise or "", servers)


def _texts(found: object) -> list[str]:
    return [str(each) for each in found] if isinstance(found, list) else []


def _membership(fault: object) -> Check:
    """That others do not know what the agent has, with the reason as its status has it."""
    advice = "see the checks of etcd below; it is tried again until it works"
    if fault is None:
        return failed("membership", "the agent cannot renew its lease", advice, 6)
    error = from_wire(fault)
    return failed("membership", f"others do not know all that the agent has: {error}", advice, error.exit_code)


def _machine(status: dict[str, object] | None) -> Iterator[Check]:
    yield check_clock()
    yield from check_verbs()
    try:
        devices = look_for_devices()
    except MooncakeError as error:
        yield failed("RDMA devices", str(error), error.hint, error.exit_code)
        devices = []
    yield from check_devices(devices)
    rdma = any(device.usable for device in devices)
    pid, whose = (str(status["pid"]), "the agent") if status else (str(os.getpid()), "this shell")
    yield from check_limits(pid, whose, rdma=rdma)
    yield from check_transports(rdma=rdma)


def _peer(client: AgentClient, peer: str) -> Iterator[Check]:
    try:
        yield from map(check_of, client.check_paths(peer))
    except MooncakeError as error:
        yield failed(f"peer {peer}", str(error), error.hint, error.exit_code)
