"""Upstream's NIC priority matrix: which RDMA devices serve the memory of each place, the nearest first.

All but ``read_matrix`` is pure. The JSON is that of upstream's ``topology.cpp`` (``--nic_priority_matrix``):
``{"cpu:0": [["mlx5_0"], ["mlx5_1"]], "cuda:0": ...}``, each place with the devices to prefer and those that are
available besides.

Upstream prefers the devices of the same NUMA node, and on a node that has none prefers nothing. Here the nearest by the
firmware's distances are preferred, and the others stand nearest first, which upstream reads as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import BadConfig
from engine.topology.model import RdmaDevice, Topology

MAX_MATRIX_BYTES = 1 << 20
"""A matrix file; that of a machine with 16 GPUs and 16 cards has 6 KB."""

UNKNOWN_DISTANCE = 1 << 16
"""Of what has no NUMA node: farther than any that has one."""

SAME_NODE_DISTANCE = 10
"""Of a NUMA node to itself, by the firmware's convention."""


@dataclass(frozen=True, slots=True)
class Devices:
    """Those to prefer for one place, and those that are available besides."""

    preferred: tuple[str, ...]
    available: tuple[str, ...]


Matrix = Mapping[str, Devices]
"""Place (``cpu:N``, ``cuda:N``) to devices."""


def priority_matrix(topology: Topology) -> Matrix:
    """The matrix of a machine, of the devices with an active port."""
    devices = [device for device in topology.rdma if device.active]
    matrix: dict[str, Devices] = {}
    for node in topology.numa:
        far = {device.name: (distance(topology, node.number, device.numa), 0) for device in devices}
        known = [device.name for device in devices if far[device.name][0] < UNKNOWN_DISTANCE]
        matrix[f"cpu:{node.number}"] = _split(far, known)
    for gpu in topology.gpus:
        far = {
            device.name: (distance(topology, gpu.numa, device.numa), hops(gpu.path, device.path)) for device in devices
        }
        matrix[gpu.name] = _split(far, [device.name for device in devices if device.path])
    return matrix


def _split(far: Mapping[str, tuple[int, int]], candidates: Sequence[str]) -> Devices:
    nearest = min((far[name] for name in candidates), default=None)
    preferred = [name for name in candidates if far[name] == nearest]
    others = sorted((name for name in far if name not in preferred), key=lambda name: (far[name], natural(name)))
    return Devices(tuple(sorted(preferred, key=natural)), tuple(others))


def distance(topology: Topology, here: int | None, there: int | None) -> int:
    """From one NUMA node to another, by the firmware's measure; farther than all where one is unknown."""
    if here is None or there is None:
        return UNKNOWN_DISTANCE
    for node in topology.numa:
        if node.number == here and there in node.distances:
            return node.distances[there]
    return SAME_NODE_DISTANCE if here == there else UNKNOWN_DISTANCE - 1


def hops(one: Sequence[str], other: Sequence[str]) -> int:
    """How many PCI bridges and devices two paths do not share."""
    shared = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        shared += 1
    return len(one) + len(other) - 2 * shared


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """A sort key by which ``mlx5_10`` comes after ``mlx5_2``."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name))


def matrix_json(matrix: Matrix) -> dict[str, list[list[str]]]:
    """Upstream's JSON."""
    return {place: [list(devices.preferred), list(devices.available)] for place, devices in matrix.items()}


def parse_matrix(text: str, *, origin: str) -> Matrix:
    """The matrix in upstream's JSON. Raises ``BadConfig``, which names ``origin``."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadConfig(origin=origin, detail=f"it is not JSON ({error})") from None
    if not isinstance(data, dict):
        raise BadConfig(origin=origin, detail="it is no JSON object of places like cpu:0")
    matrix: dict[str, Devices] = {}
    for place, lists in data.items():
        if not isinstance(lists, list) or len(lists) != 2 or not all(map(_is_names, lists)):
            detail = f"{place!r} has no two lists of device names: [[PREFERRED...], [AVAILABLE...]]"
            raise BadConfig(origin=origin, detail=detail)
        matrix[place] = Devices(tuple(lists[0]), tuple(lists[1]))
    return matrix


def _is_names(names: object) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) and name for name in names)


def read_matrix(file: Path) -> Matrix:
    """The matrix in a file. Raises ``BadConfig``."""
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_MATRIX_BYTES + 1)
    except OSError as error:
        raise BadConfig(origin=str(file), detail=f"it cannot be read ({error.strerror})") from None
    if len(data) > MAX_MATRIX_BYTES:
        raise BadConfig(origin=str(file), detail=f"it is longer than {MAX_MATRIX_BYTES} bytes")
    try:
        return parse_matrix(data.decode(), origin=str(file))
    except UnicodeDecodeError:
        raise BadConfig(origin=str(file), detail="it is no text") from None


def unknown_devices(matrix: Matrix, devices: Sequence[RdmaDevice]) -> list[str]:
    """The devices that a matrix names and this machine lacks."""
    named = {name for each in matrix.values() for name in (*each.preferred, *each.available)}
    return sorted(named - {device.name for device in devices}, key=natural)
