"""The RDMA devices of this machine: which can be used, by which GID, and why the others cannot.

All but ``Nics`` and ``inspect`` is pure.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.errors import MooncakeError, TransportUnavailable
from engine.topology.matrix import Devices, Matrix, priority_matrix, read_matrix
from engine.topology.sysfs import discover
from engine.transports.rdma.addresses import RdmaAddress, to_text
from engine.transports.rdma.verbs.interface import ACTIVE, Context, Gid, GidType, Limits, LinkLayer, PortInfo, Verbs

if TYPE_CHECKING:
    from engine.config.settings import EngineSettings
    from engine.topology.model import Topology

log = logging.getLogger(__name__)

_MAPPED = bytes(10) + b"\xff\xff"
_LINK_LOCAL = b"\xfe\x80"


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """One device as it was found. ``reason`` says why it cannot be used, and is empty where it can.

    ``info`` and ``gid`` are None where it could not be asked. ``preferred``: by the priority matrix for host memory.
    """

    name: str
    port: int
    reason: str = ""
    info: PortInfo | None = None
    limits: Limits | None = None
    gid: Gid | None = None
    gids: tuple[Gid, ...] = ()
    prefix: int = 0
    numa: int | None = None
    preferred: bool = True

    @property
    def usable(self) -> bool:
        """Whether transfers may go over it."""
        return not self.reason

    @property
    def address(self) -> RdmaAddress:
        """How others reach it; of a usable device."""
        assert self.info is not None and self.gid is not None  # noqa: S101, PT018 - a usable one has both
        return RdmaAddress(self.name, self.info.link, self.info.lid, self.gid.raw, self.prefix)


def choose_gid(gids: Sequence[Gid], link: LinkLayer, wanted: int | None = None) -> Gid | None:
    """The GID to use: the one at index ``wanted``, or the first of the best kind; None where there is none.

    On Ethernet RoCE v2 goes before v1, which no router takes, an IPv4 address before an IPv6 one, and a global address
    before a link's own.
    """
    if wanted is not None:
        return next((gid for gid in gids if gid.index == wanted), None)
    if link is LinkLayer.INFINIBAND:
        return min(gids, key=lambda gid: gid.index, default=None)
    candidates = [gid for gid in gids if gid.type is not GidType.INFINIBAND]
    return min(candidates, key=lambda gid: (-gid.type, _kind(gid.raw), gid.index), default=None)


def _kind(raw: bytes) -> int:
    if raw.startswith(_MAPPED):
        return 0
    return 2 if raw.startswith(_LINK_LOCAL) else 1


def why_unusable(info: PortInfo, gid: Gid | None, wanted: int | None = None) -> str:
    """Why a port cannot be used; empty where it can."""
    if info.state != ACTIVE:
        return f"its port is {info.state}, not {ACTIVE}"
    if gid is None and wanted is not None:
        return f"it has no GID at index {wanted} (MC_GID_INDEX)"
    if gid is None:
        return "its port has no GID: give its network interface an address"
    return ""


def wanted_devices(text: str | None) -> frozenset[str]:
    """The devices that a setting names, joined by commas; none where it names none, which means all."""
    return frozenset(name.strip() for name in (text or "").split(",") if name.strip())


def preferences(names: Iterable[str], matrix: Matrix) -> Mapping[str, bool]:
    """Which devices the matrix prefers for host memory: pages of a file may lie on any node, so any node's count."""
    found = set(names)
    preferred = {
        name for place, each in matrix.items() if place.startswith("cpu") for name in each.preferred if name in found
    }
    return {name: name in preferred or not preferred for name in found}


def network_prefix(gid: Gid | None, topology: Topology) -> int:
    """The length of the network's prefix of a GID that is an interface's IP address; 0 where it is unknown."""
    if gid is None or not gid.netdev:
        return 0
    import ipaddress  # noqa: PLC0415 - for this alone

    mapped = gid.raw.startswith(_MAPPED)
    own = ipaddress.ip_address(gid.raw[12:] if mapped else gid.raw)
    for nic in topology.nics:
        for address in nic.addresses if nic.name == gid.netdev else ():
            with contextlib.suppress(ValueError):
                if ipaddress.ip_address(address.address) == own:
                    return address.prefix + (96 if mapped else 0)
    return 0


class RdmaNic:
    """A usable device, opened."""

    def __init__(self, report: DeviceReport, context: Context) -> None:
        assert report.info is not None and report.gid is not None and report.limits is not None  # noqa: S101, PT018
        self.report = report
        self.context = context
        self.name = report.name
        self.address = report.address
        self.info = report.info
        self.gid = report.gid
        self.limits = report.limits


class Nics:
    """The usable devices of this machine, opened together. Close it after all that was made from them."""

    def __init__(self, verbs: Verbs, settings: EngineSettings, *, topology: Callable[[], Topology] = discover) -> None:
        """Open them. Raises ``TransportUnavailable`` where none is usable, with the reasons, and ``BadConfig``."""
        self.verbs = verbs
        self.settings = settings
        self.reports: tuple[DeviceReport, ...] = ()
        self._matrix: Matrix = {}
        self._opened: list[RdmaNic] = []
        reports = []
        try:
            found = topology()
            self._matrix = matrix_of(settings, found)
            for report, context in _look(verbs, settings, found, self._matrix):
                reports.append(report)
                if context is None:
                    continue
                if report.usable:
                    self._opened.append(RdmaNic(report, context))
                else:
                    context.close()
        except BaseException:
            self.close()
            raise
        self.reports = tuple(reports)
        # The preferred first: that is the order in which others are told of them.
        self._opened.sort(key=lambda nic: not nic.report.preferred)
        if not self._opened:
            raise TransportUnavailable(transport="rdma", detail=no_device(reports))

    def __iter__(self) -> Iterator[RdmaNic]:
        return iter(self._opened)

    def __len__(self) -> int:
        return len(self._opened)

    def __getitem__(self, name: str) -> RdmaNic:
        for nic in self._opened:
            if nic.name == name:
                return nic
        raise KeyError(name)

    def get(self, name: str) -> RdmaNic | None:
        """The device of this name; None where it is not here or cannot be used."""
        return next((nic for nic in self._opened if nic.name == name), None)

    @property
    def addresses(self) -> tuple[RdmaAddress, ...]:
        """How others reach them."""
        return tuple(nic.address for nic in self._opened)

    @property
    def matrix(self) -> Matrix:
        """The priority matrix of the usable devices; all are preferred where it would be empty."""
        names = {nic.name for nic in self._opened}
        found = {
            place: Devices(
                tuple(name for name in each.preferred if name in names),
                tuple(name for name in each.available if name in names),
            )
            for place, each in self._matrix.items()
        }
        named = {name for each in found.values() for name in (*each.preferred, *each.available)}
        if named < names:
            found["cpu:0"] = Devices(tuple(nic.name for nic in self._opened), ())
        return {place: each for place, each in found.items() if each.preferred or each.available}

    @property
    def in_order(self) -> list[RdmaNic]:
        """The devices in the order in which upstream numbers them: as the matrix names them, place by place."""
        names = dict.fromkeys(
            name for _, each in sorted(self.matrix.items()) for name in (*each.preferred, *each.available)
        )
        return [self[name] for name in names]

    @property
    def text(self) -> str:
        """What others are told."""
        return to_text(self.addresses)

    def mtu(self, nic: RdmaNic) -> int:
        """The MTU to use on a device, bytes: its port's, or less where that is set."""
        return min(nic.info.mtu, self.settings.mtu)

    def close(self) -> None:
        """Close all devices. Twice is harmless."""
        opened, self._opened = self._opened, []
        for nic in opened:
            with contextlib.suppress(MooncakeError):
                nic.context.close()


def inspect(
    verbs: Verbs, settings: EngineSettings, *, topology: Callable[[], Topology] = discover
) -> list[DeviceReport]:
    """Every device of this machine, usable or not. Raises ``BadConfig``."""
    reports = []
    found = topology()
    for report, context in _look(verbs, settings, found, matrix_of(settings, found)):
        reports.append(report)
        if context is not None:
            context.close()
    return reports


def no_device(reports: Sequence[DeviceReport]) -> str:
    """Why there is no usable device, in a few words."""
    if not reports:
        return "this machine has no RDMA device"
    return "; ".join(f"{report.name}: {report.reason}" for report in reports if report.reason)


def matrix_of(settings: EngineSettings, topology: Topology) -> Matrix:
    """The priority matrix that counts: the file's that is set, or the machine's own. Raises ``BadConfig``."""
    return read_matrix(settings.topology_file) if settings.topology_file is not None else priority_matrix(topology)


def _look(
    verbs: Verbs, settings: EngineSettings, found: Topology, matrix: Matrix
) -> Iterable[tuple[DeviceReport, Context | None]]:
    names = verbs.devices()
    if not names:
        return
    wanted = wanted_devices(settings.device_name)
    preferred = preferences(names, matrix)
    numa = {device.name: device.numa for device in found.rdma}
    for name in names:
        report = DeviceReport(name, settings.ib_port, numa=numa.get(name), preferred=preferred[name])
        if wanted and name not in wanted:
            yield replace(report, reason="the setting device_name names others"), None
            continue
        context = None
        try:
            context = verbs.open(name)
            report = _ask(report, context, settings, found)
        except TransportUnavailable as error:
            report = replace(report, reason=str(error.fields.get("detail") or error))
        except BaseException:
            if context is not None:
                context.close()
            raise
        yield report, context


def _ask(report: DeviceReport, context: Context, settings: EngineSettings, topology: Topology) -> DeviceReport:
    limits = context.limits()
    if report.port > limits.ports:
        return replace(report, limits=limits, reason=f"it has {limits.ports} ports, and no port {report.port}")
    info = context.port(report.port)
    gids = tuple(context.gids(report.port))
    gid = choose_gid(gids, info.link, settings.gid_index)
    return replace(
        report,
        limits=limits,
        info=info,
        gids=gids,
        gid=gid,
        prefix=network_prefix(gid, topology),
        reason=why_unusable(info, gid, settings.gid_index),
    )
