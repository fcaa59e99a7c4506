"""What of this machine bounds a node: its process's limits, and RDMA devices with why each is usable or not."""

from __future__ import annotations

import ctypes
import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from engine.config.settings import EngineSettings
from engine.net import addresses, sockets
from engine.net.listening import address_of
from engine.net.published import doubts, published
from engine.transports.rdma.nics import DeviceReport, inspect
from engine.transports.rdma.verbs.interface import Gid
from engine.transports.rdma.verbs.load import load_verbs
from p2pstore.errors import MooncakeError, NoSuchAddress
from p2pstore.node_options import DEFAULT_PORT, PORTS
from p2pstore.peers.checks import Check, failed, ok, warning

FEW_FILES = 1024
"""Open files below which a node with many peers may run out."""

PUBLISHED = "published address"
"""The check of what others are told."""

_PYVERBS = (
    "not needed: libibverbs is enough. It must be the one of this system's rdma-core and Python, such as Debian's "
    "python3-pyverbs; docs/engine.md says how to use it from a virtual environment"
)

LITTLE_MEMORY = 64 << 20
"""Bytes of locked memory below which hardly anything can be read over RDMA: the receivers' rings alone take as much."""

_UNSYNCHRONISED = 5
"""What adjtimex(2) returns (TIME_ERROR) for a clock that nothing disciplines."""

_LIMIT = re.compile(r"^(Max open files|Max locked memory)\s+(\S+)", re.MULTILINE)


def check_limits(pid: int | str, whose: str, *, rdma: bool, proc: Path = Path("/proc")) -> Iterator[Check]:
    """The limits of a process, which ``whose`` names. ``rdma``: whether there is a device that pins memory."""
    try:
        found = dict(_LIMIT.findall((proc / str(pid) / "limits").read_text()))
    except OSError:
        return
    files = found.get("Max open files", "unlimited")
    if files != "unlimited" and int(files) < FEW_FILES:
        detail = f"{files} for {whose}"
        yield warning("open files", detail, "raise it: 'ulimit -n 65536', or LimitNOFILE= in a systemd unit")
    else:
        yield ok("open files", f"{files} for {whose}")
    memory = found.get("Max locked memory", "unlimited")
    if memory == "unlimited":
        yield ok("locked memory", f"unlimited for {whose}")
    elif int(memory) < LITTLE_MEMORY and rdma:
        detail = f"{memory} bytes for {whose}: too little for RDMA"
        advice = "raise it: 'ulimit -l unlimited', LimitMEMLOCK=infinity in a systemd unit, or limits.conf"
        yield failed("locked memory", detail, advice, 9)
    else:
        yield ok("locked memory", f"{memory} bytes for {whose}" + ("" if rdma else ", which only RDMA needs"))


def check_place(listen: str, advertise: str, servers: Sequence[tuple[str, int]]) -> Iterator[Check]:
    """What an agent that is to listen there would tell others: whether it is an address, and one that they reach."""
    try:
        host = address_of(addresses.given_ports(listen)[0])
        told = address_of(advertise) if advertise else published(host, servers)
    except NoSuchAddress as error:
        yield failed(PUBLISHED, str(error), error.hint, error.exit_code)
        return
    found = doubts(told, host, servers)
    yield from check_published(found) if found else [ok(PUBLISHED, f"{told}, listening on {host}")]


def check_published(found: Iterable[str]) -> Iterator[Check]:
    """A warning for each reason why others may not reach the address that they are told."""
    for doubt in found:
        yield warning(PUBLISHED, doubt, "name an address, interface or network that others reach: --listen, advertise")


def check_ports(listen: str) -> Iterator[Check]:
    """Whether the three ports of an agent that is to listen there can be had; nothing where any port will do.

    Of a choice of ports, whether three can be had together.
    """
    host, ports = addresses.given_ports(listen)
    try:
        host = address_of(host)
    except NoSuchAddress:
        return  # ``check_place`` says so
    if not ports and not sockets.is_loopback(host):
        ports = range(DEFAULT_PORT, DEFAULT_PORT + 1)
    if not ports:
        return
    first = ports.start
    if len(ports) > 1:
        first = next((each for each in ports[: -PORTS + 1 : PORTS] if not _taken(host, each)), first)
    taken = _taken(host, first)
    for number, use in zip(range(first, first + PORTS), ("control", "handshake", "data"), strict=True):
        if number in taken:
            advice = "end what has it ('ss -ltnp'), or choose another with --listen"
            yield failed(f"port {number}", taken[number], advice, 2)
        else:
            yield ok(f"port {number}", f"free for {use} at {host}")


def _taken(host: str, first: int) -> dict[int, str]:
    """Which of an agent's ports cannot be had, and why."""
    found = {}
    for number in range(first, first + PORTS):
        try:
            sockets.listen(host, number).close()
        except MooncakeError as error:
            found[number] = str(error.fields.get("detail", error))
    return found


def check_clock() -> Check:
    """Whether the kernel says that something keeps its clock right: requests with a secret are signed with the time."""
    room = ctypes.create_string_buffer(512)  # a struct timex of zeros asks, and changes nothing
    if ctypes.CDLL(None).adjtimex(room) == _UNSYNCHRONISED:
        return warning("clock", "nothing keeps it right, or not yet", "run chrony or systemd-timesyncd")
    return ok("clock", "it is kept right")


def check_verbs() -> Iterator[Check]:
    """Which of the two ways to the RDMA verbs load."""
    for name, subject, advice in (
        ("ctypes", "libibverbs", "Debian and Ubuntu: apt-get install libibverbs1 ibverbs-providers"),
        (
            "pyverbs",
            "pyverbs",
            _PYVERBS,
        ),
    ):
        try:
            load_verbs(name)
        except MooncakeError as error:
            yield warning(subject, str(error.fields.get("detail", error)), advice)
        else:
            yield ok(subject, "loads")


def look_for_devices() -> list[DeviceReport]:
    """Every RDMA device; none where the verbs do not load. Raises ``BadConfig``."""
    try:
        verbs = load_verbs()
    except MooncakeError:
        return []
    return inspect(verbs, EngineSettings.load())


def check_devices(reports: list[DeviceReport]) -> Iterator[Check]:
    """One check a device."""
    if not reports:
        yield warning("RDMA devices", "none: transfers go over TCP", "")
    for report in reports:
        subject = f"RDMA {report.name} port {report.port}"
        what = []
        if report.info is not None:
            what = [report.info.state, str(report.info.link.value), f"MTU {report.info.mtu}"]
        if report.gid is not None:
            what.append(f"GID {report.gid.index} {_gid(report.gid)}")
        if len(report.gids) > 1:
            what.append(f"{len(report.gids)} GIDs")
        detail = ", ".join(what)
        if report.usable:
            yield ok(subject, detail if report.preferred else f"{detail}; not preferred by the priority matrix")
        else:
            text = f"{report.reason} ({detail})" if detail else report.reason
            yield warning(subject, f"not used: {text}", "see 'mooncake topology' and 'rdma link'")


def _gid(gid: Gid) -> str:
    address = ipaddress.IPv6Address(gid.raw)
    return f"{address.ipv4_mapped or address} ({gid.type.name.lower()})"
