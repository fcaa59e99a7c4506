"""``mooncake topology``: what this machine has to move bytes with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column, Output
from mooncake_cli.text import printable
from p2pstore.errors import UsageError

if TYPE_CHECKING:
    from engine.topology import Matrix, Topology

EXAMPLES = {
    "topology": (
        "mooncake topology",
        "mooncake topology --matrix           # upstream's JSON, to edit and to give back",
        "mooncake topology --nic-priority-matrix matrix.json",
        "mooncake topology --peer 10.0.0.7    # from which of our addresses to connect to it",
    )
}

LEGEND = (
    ("NVLink", "by NVLink"),
    ("PIX", "below one PCI switch"),
    ("PXB", "over several PCI switches"),
    ("PHB", "over the processor's PCI root"),
    ("NODE", "over PCI roots of a NUMA node"),
    ("SYS", "from NUMA node to NUMA node"),
    ("peer", "by a way that is not known"),
    ("host", "not by itself, through the host's memory"),
)
"""The words of the table of GPUs."""


def topology(
    ctx: typer.Context,
    matrix_file: Annotated[
        Path | None,
        typer.Option("--nic-priority-matrix", metavar="FILE", help="Take the priority matrix from FILE."),
    ] = None,
    matrix_only: Annotated[bool, typer.Option("--matrix", help="Print the priority matrix alone, as JSON.")] = False,
    peer: Annotated[
        str | None,
        typer.Option("--peer", metavar="ADDRESS", help="Say from which addresses to connect to this IP address."),
    ] = None,
) -> None:
    """Show network cards, RDMA devices and GPUs.

    Of GPUs it tells the nearest cards, which GPUs copy to one another by themselves, as CUDA says, and by what way:
    NVLink, or PCI in the words of 'nvidia-smi topo -m'.

    And the priority matrix: which RDMA devices serve the memory of each NUMA node and GPU, nearest first, in
    upstream's format. It is computed, or read from --nic-priority-matrix or the file that MC_CUSTOM_TOPO_JSON names.
    """
    from engine.config.settings import EngineSettings  # noqa: PLC0415 - most commands need none
    from engine.topology import (  # noqa: PLC0415 - as above
        discover,
        matrix_json,
        priority_matrix,
        read_matrix,
        source_addresses,
    )
    from engine.topology.matrix import unknown_devices  # noqa: PLC0415 - as above

    invocation: Invocation = ctx.obj
    output = invocation.output
    found = discover()
    named = matrix_file or EngineSettings.load().topology_file
    matrix = read_matrix(named) if named is not None else priority_matrix(found)
    if named is not None and (strange := unknown_devices(matrix, found.rdma)):
        output.message(f"{printable(named)} names devices that this machine lacks: {printable(', '.join(strange))}")
    if matrix_only:
        output.line(json.dumps(matrix_json(matrix), indent=None if output.mode == "json" else 2))
        return
    ways = _ways(output, found)
    document = _document(found, ways, matrix)
    if peer is not None:
        _check_address(peer)
        document["sources"] = source_addresses(found, peer)
    human = _tables(output, found, ways, matrix, document.get("sources")) if output.mode == "human" else ""
    output.data(document, human=human, quiet=(nic.name for nic in found.nics if nic.up and not nic.loopback))


class Way(NamedTuple):
    """How one GPU reaches another: whether by itself, and by what; None and empty where that is not known."""

    source: str
    target: str
    peer_access: bool | None
    nvlink: bool | None
    pci: str

    def to_json(self) -> dict[str, Any]:
        """JSON types. ``pci`` is null where it is not known."""
        return {
            "from": self.source,
            "to": self.target,
            "peer_access": self.peer_access,
            "nvlink": self.nvlink,
            "pci": self.pci or None,
        }

    def cell(self) -> str:
        """``NVLink``, ``PIX`` or the like; ``host`` where it does not reach it; with ``?`` where that is not known."""
        if self.peer_access is None:
            return f"{self.pci}?"
        if not self.peer_access:
            return "host"
        return "NVLink" if self.nvlink else self.pci or "peer"


def _document(found: Topology, ways: Sequence[Way], matrix: Matrix) -> dict[str, Any]:
    from engine.topology import matrix_json, nearest_nics  # noqa: PLC0415 - most commands need none

    gpus = [{**gpu.to_json(), "nearest_nics": nearest_nics(found, gpu)} for gpu in found.gpus]
    links = [each.to_json() for each in ways]
    return {**found.to_json(), "gpus": gpus, "gpu_links": links, "matrix": matrix_json(matrix)}


def _ways(output: Output, found: Topology) -> list[Way]:
    """Between each two GPUs, as far as CUDA and the management library tell; why they do not is said."""
    from engine.topology import way  # noqa: PLC0415 - most commands need none

    links: dict[tuple[str, str], tuple[bool, bool | None]] = {}
    cuda = [gpu for gpu in found.gpus if gpu.name.startswith("cuda:")]
    if len(cuda) > 1:
        from engine.cuda import load  # noqa: PLC0415 - as above
        from engine.cuda.links import links as asked  # noqa: PLC0415 - as above
        from engine.errors import GpuFailed, GpuUnavailable  # noqa: PLC0415 - as above

        try:
            links = {(link.device, link.other): (link.peer, link.nvlink) for link in asked(load.cuda().driver)}
        except (GpuUnavailable, GpuFailed) as error:
            output.message(f"how the GPUs reach one another is not known: {printable(error)}")
    ways = []
    for one in found.gpus:
        for other in found.gpus:
            if one is not other:
                pair = (one.path[-1] if one.path else "", other.path[-1] if other.path else "")
                peer, nvlink = links.get(pair, (None, None))
                ways.append(Way(one.name, other.name, peer, nvlink, way(one, other)))
    return ways


def _check_address(text: str) -> None:
    import ipaddress  # noqa: PLC0415 - only here

    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise UsageError(detail=f"{text!r} is no IP address") from None


def _tables(output: Output, found: Topology, ways: Sequence[Way], matrix: Matrix, sources: list[str] | None) -> str:
    parts = [_nics(output, found)]
    if found.rdma:
        parts.append(_rdma(output, found))
    parts.append(_gpus(output, found) if found.gpus else "no GPU was found\n")
    if ways:
        parts.append(_reaches(output, found, ways))
    parts.append(_matrix(output, matrix) if matrix else "")
    if sources is not None:
        shown = ", ".join(sources) if sources else "the kernel's choice"
        parts.append(f"connections to that address are bound to: {shown}\n")
    return "\n".join(part for part in parts if part)


def _nics(output: Output, found: Topology) -> str:
    columns = (
        Column("NIC", style="bold"),
        Column("STATE"),
        Column("SPEED", right=True),
        Column("NUMA", right=True),
        Column("PCI"),
        Column("ADDRESSES"),
    )
    rows = [
        (
            printable(nic.name),
            "up" if nic.up else "down",
            speed(nic.speed),
            number(nic.numa),
            nic.pci or "-",
            ", ".join(map(str, nic.addresses)) or "-",
        )
        for nic in found.nics
        if not nic.loopback
    ]
    return output.table(columns, rows)


def _rdma(output: Output, found: Topology) -> str:
    columns = (
        Column("RDMA", style="bold"),
        Column("PORT", right=True),
        Column("STATE"),
        Column("LINK"),
        Column("SPEED", right=True),
        Column("NUMA", right=True),
        Column("NIC"),
    )
    rows = [
        (
            printable(device.name),
            str(port.number),
            printable(port.state.lower() or "-"),
            printable(port.link_layer or "-"),
            speed(port.speed),
            number(device.numa),
            printable(", ".join(device.netdevs) or "-"),
        )
        for device in found.rdma
        for port in device.ports
    ]
    return output.table(columns, rows)


def _gpus(output: Output, found: Topology) -> str:
    from engine.topology import nearest_nics  # noqa: PLC0415 - most commands need none

    columns = (
        Column("GPU", style="bold"),
        Column("VENDOR"),
        Column("NUMA", right=True),
        Column("PCI"),
        Column("NEAREST NIC"),
    )
    rows = [
        (
            gpu.name,
            gpu.vendor,
            number(gpu.numa),
            gpu.to_json()["pci"] or "-",
            printable(", ".join(nearest_nics(found, gpu)) or "-"),
        )
        for gpu in found.gpus
    ]
    return output.table(columns, rows)


def _reaches(output: Output, found: Topology, ways: Sequence[Way]) -> str:
    cells = {(each.source, each.target): each.cell() for each in ways}
    names = [gpu.name for gpu in found.gpus]
    columns = (Column("FROM", style="bold"), *(Column(name) for name in names))
    rows = [(source, *(cells.get((source, target), "-") for target in names)) for source in names]
    legend = [
        f"{words}: {meaning}" for words, meaning in LEGEND if any(cell.startswith(words) for cell in cells.values())
    ]
    if any(cell.endswith("?") for cell in cells.values()):
        legend.append("?: whether one copies to the other by itself is not known")
    return output.table(columns, rows) + "; ".join(legend) + "\n"


def _matrix(output: Output, matrix: Matrix) -> str:
    columns = (Column("PLACE", style="bold"), Column("PREFERRED"), Column("AVAILABLE"))
    rows = [
        (
            printable(place),
            printable(", ".join(devices.preferred) or "-"),
            printable(", ".join(devices.available) or "-"),
        )
        for place, devices in matrix.items()
    ]
    return output.table(columns, rows)


def speed(mbps: int | None) -> str:
    """``400 Gb/s``, ``100 Mb/s``, or a dash."""
    if mbps is None:
        return "-"
    return f"{mbps / 1000:g} Gb/s" if mbps >= 1000 else f"{mbps} Mb/s"


def number(value: int | None) -> str:
    """A number or a dash."""
    return "-" if value is None else str(value)
