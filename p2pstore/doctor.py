"""What a node needs to work, looked at one by one: each check says how it stands, and what to do about it.

Nothing is changed. What is checked over a network has a timeout, and one check that fails keeps none of the others from
being made.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import platform
import resource
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from engine.buffers import MemoryBuffer
from engine.errors import MooncakeError, TransportUnavailable
from engine.segment_server import SegmentServer
from engine.settings import EngineSettings
from engine.transports.rdma.addresses import gid_text
from engine.transports.rdma.load import load_verbs
from engine.transports.rdma.nics import DeviceReport, inspect
from engine.transports.rdma.verbs import locked_memory_limit
from p2pstore.agent_options import credentials
from p2pstore.client import AgentClient
from p2pstore.config import Settings, parse_address
from p2pstore.control.peer_client import PeerClient
from p2pstore.discovery import peer_address
from p2pstore.home import Home
from p2pstore.metadata.urls import open_store
from p2pstore.paths import Path, check_paths

ENOUGH_LOCKED = 1 << 30
"""Bytes of locked memory below which RDMA will soon be refused."""

LOOPBACK_BYTES = 1 << 20
"""Bytes that each transport brings from this process to itself."""

METADATA_SECONDS = 10.0
PEER_SECONDS = 60.0

_UNSYNCHRONISED = 5


class State(str, Enum):
    """How a check went. ``INFO`` is neither good nor bad: something optional is not there."""

    OK = "ok"
    INFO = "info"
    BAD = "bad"


@dataclass(frozen=True)
class Check:
    """One check: what was looked at, how it stands, and what to do."""

    name: str
    state: State
    detail: str
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return {**asdict(self), "state": self.state.value}


async def examine(home: Home, settings: Settings, peer: str = "") -> list[Check]:
    """Every check; with ``peer`` (a control address) those of the paths to it, and back, as well."""
    status = await asyncio.to_thread(_agent_status, home)
    checks = [_python(), _agent(status), *_ports(settings, status)]
    checks.append(await _metadata(settings, status))
    checks += [_clock(), _locked_memory()]
    checks += await asyncio.to_thread(lambda: [*_devices(), _pyverbs(), *_loopback(settings)])
    if peer:
        checks += await _peer(settings, status, peer)
    return checks


def _python() -> Check:
    return Check("python", State.OK, f"{platform.python_version()}, {platform.system()} {platform.release()}")


def _agent_status(home: Home) -> dict[str, Any] | None:
    try:
        return AgentClient(home).status()
    except MooncakeError:
        return None


def _agent(status: dict[str, Any] | None) -> Check:
    if status is None:
        return Check(
            "agent", State.INFO, "none runs", "'mooncake node start', or any command that needs one, starts it"
        )
    return Check("agent", State.OK, f"{status['node']} (pid {status['pid']}), control {status['control']}")


def _ports(settings: Settings, status: dict[str, Any] | None) -> Iterator[Check]:
    """Whether the agent's three ports can be had, where no agent has them and they are named."""
    host, port = parse_address(settings.listen)
    if status is not None or not port:
        return
    for number in range(port, port + 3):
        try:
            with socket.create_server((host, number)):
                yield Check(f"port {number}", State.OK, "free")
        except OSError as error:
            advice = "choose another with --listen, or end what has it"
            yield Check(f"port {number}", State.BAD, f"cannot be had: {error.strerror}", advice)


async def _metadata(settings: Settings, status: dict[str, Any] | None) -> Check:
    url = settings.metadata or (str(status["metadata"]) if status is not None else "")
    if not url:
        return Check("metadata", State.INFO, "no server is named: the agent starts an etcd of its own")
    store = open_store(url, credentials(settings))
    try:
        found = await asyncio.wait_for(store.check(), METADATA_SECONDS)
        return Check("metadata", State.OK, f"{url}: version {found.version}, {found.seconds * 1e3:.0f} ms")
    except asyncio.TimeoutError:
        return Check("metadata", State.BAD, f"{url} does not answer in {METADATA_SECONDS:g} s")
    except MooncakeError as error:
        return Check("metadata", State.BAD, str(error), error.hint)
    finally:
        await store.close()


def _clock() -> Check:
    """Whether the kernel says that something keeps its clock right: requests are signed with the time."""
    room = ctypes.create_string_buffer(512)  # struct timex, all zero: ask, and change nothing
    state = ctypes.CDLL(None).adjtimex(room)
    if state == _UNSYNCHRONISED:
        advice = (
            "run chrony or systemd-timesyncd; nodes whose clocks differ by more than five minutes refuse each other"
        )
        return Check("clock", State.INFO, "nothing keeps it right, or not yet", advice)
    return Check("clock", State.OK, "kept right" if state >= 0 else "the kernel does not say whether it is kept right")


def _locked_memory() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY or soft >= ENOUGH_LOCKED:
        return Check("locked memory", State.OK, locked_memory_limit())
    advice = "for RDMA: 'ulimit -l unlimited', or LimitMEMLOCK=infinity in the unit of systemd"
    return Check("locked memory", State.INFO, f"at most {locked_memory_limit()}", advice)


def _devices() -> Iterator[Check]:
    try:
        reports = inspect(load_verbs(), EngineSettings.load())
    except MooncakeError as error:
        yield Check("RDMA", State.INFO, str(error.fields.get("detail") or error))
        return
    if not reports:
        yield Check("RDMA", State.INFO, "this machine has no RDMA device")
    for report in reports:
        yield Check(f"RDMA {report.name}", State.OK if report.usable else State.BAD, _device(report))


def _device(report: DeviceReport) -> str:
    words = [report.reason] if report.reason else []
    if report.info is not None:
        link = "RoCE" if report.info.link.name == "ETHERNET" else "InfiniBand"
        words.append(f"port {report.port} {report.info.state}, {link}, MTU {report.info.mtu}")
    if report.gid is not None:
        words.append(
            f"GID {report.gid.index} {gid_text(report.gid.raw)} ({report.gid.type.name}) of {len(report.gids)}"
        )
    return "; ".join(words)


def _pyverbs() -> Check:
    if importlib.util.find_spec("pyverbs") is None:
        return Check("pyverbs", State.INFO, "not installed, and not needed: ctypes speaks to libibverbs")
    try:
        load_verbs("pyverbs")
    except TransportUnavailable as error:
        return Check("pyverbs", State.INFO, str(error.fields.get("detail") or error))
    return Check("pyverbs", State.OK, "loads; MOONCAKE_VERBS=pyverbs uses it instead of ctypes")


def _loopback(settings: Settings) -> Iterator[Check]:
    """Bring bytes from this process to itself, over each transport that goes over a network."""
    data = bytes(range(256)) * (LOOPBACK_BYTES // 256)
    rdma = False if settings.rdma_devices == "none" else settings.rdma_devices
    with SegmentServer(rdma=rdma) as server:
        address = server.register(MemoryBuffer("doctor", data))
        me = server.address_of_self()
        for name in ("tcp", "rdma"):
            title = f"loopback {name}"
            reason = server.rdma_reason if name == "rdma" else ""
            if reason:
                yield Check(title, State.INFO, reason)
                continue
            into = bytearray(len(data))
            try:
                server.read(me, address, memoryview(into), name)
            except MooncakeError as error:
                yield Check(title, State.BAD, str(error), error.hint)
                continue
            whole = into == data
            yield Check(title, State.OK if whole else State.BAD, "1 MiB came" if whole else "other bytes came")


async def _peer(settings: Settings, status: dict[str, Any] | None, control: str) -> list[Check]:
    """The paths to a peer, and those from it back to our agent."""
    client = PeerClient(settings.secret)
    try:
        record = await client.node(control)
        server = SegmentServer(rdma=False if settings.rdma_devices == "none" else settings.rdma_devices)
        try:
            paths = await asyncio.to_thread(check_paths, peer_address(record), server.transport, server.open)
        finally:
            await asyncio.to_thread(server.close)
        checks = [_path(f"to {record.node}", path) for path in paths]
        if status is None:
            checks.append(Check(f"from {record.node}", State.INFO, "not looked at: no agent of ours runs"))
            return checks
        return checks + await _back(client, control, record.node, str(status["node"]))
    except MooncakeError as error:
        return [Check(f"to {control}", State.BAD, str(error), error.hint)]
    finally:
        await client.close()


async def _back(client: PeerClient, control: str, peer: str, ours: str) -> list[Check]:
    try:
        paths = await asyncio.wait_for(client.paths(control, ours), PEER_SECONDS)
    except asyncio.TimeoutError:
        return [Check(f"from {peer}", State.BAD, f"it does not say in {PEER_SECONDS:g} s")]
    except MooncakeError as error:
        return [Check(f"from {peer}", State.BAD, str(error))]
    return [_path(f"from {peer}", path) for path in paths]


def _path(title: str, path: Path) -> Check:
    name = f"{title} over {path.transport}"
    if path.works:
        return Check(name, State.OK, f"connects in {path.seconds * 1e3:.1f} ms")
    # Only TCP has to work: the others are for peers that are near, or have the cards.
    advice = "see that its address and ports are reachable: firewall, --advertise" if path.transport == "tcp" else ""
    return Check(name, State.BAD if path.transport == "tcp" else State.INFO, path.detail, advice)
