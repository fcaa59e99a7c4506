"""Which GPUs of this machine reach one another by themselves, and which by NVLink. For people: copies ask ``peers``.

GPUs are told apart by their PCI addresses: CUDA numbers them by speed, and may see but some of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from engine.cuda.driver import Driver

NVML = "cuda.bindings.nvml"
"""cuda-bindings' calls of NVIDIA's management library; it has them from 12.9.6 on, and those for CUDA 13 from 13.2.0.

Source: its release notes and its wheels; 12.9.5 and 13.1 had an experiment of another name.
"""


class Link(NamedTuple):
    """How one GPU reaches another, both by PCI address. ``nvlink`` is None where that is not known."""

    device: str
    other: str
    peer: bool
    nvlink: bool | None


def links(driver: Driver, nvml: Any = None) -> list[Link]:
    """How each GPU that CUDA sees reaches each other one. Raises ``GpuFailed``.

    ``nvml`` is cuda-bindings' module; by default the one that is installed.
    """
    places = [driver.pci_address(device) for device in range(driver.count())]
    found = []
    with _nvlinks(nvml if nvml is not None else _installed(), places) as nvlinks:
        for device, here in enumerate(places):
            for other, there in enumerate(places):
                if device != other:
                    found.append(Link(here, there, driver.reaches(device, other), nvlinks.by_nvlink(here, there)))
    return found


class _NvLinks:
    """What the management library says, as far as it says anything."""

    def __init__(self, nvml: Any, handles: dict[str, Any]) -> None:
        self._nvml = nvml
        self._handles = handles

    def by_nvlink(self, here: str, there: str) -> bool | None:
        if here not in self._handles or there not in self._handles:
            return None
        nvml = self._nvml
        try:
            status = nvml.device_get_p2p_status(
                self._handles[here], self._handles[there], int(nvml.GpuP2PCapsIndex.P2P_CAPS_INDEX_NVLINK)
            )
        except Exception:  # noqa: BLE001 - of a library or a GPU that cannot tell
            return None
        return bool(int(status) == int(nvml.GpuP2PStatus.P2P_STATUS_OK))


@contextmanager
def _nvlinks(nvml: Any, places: list[str]) -> Iterator[_NvLinks]:
    """Begin with the library, and end; without it nothing is known."""
    if nvml is None:
        yield _NvLinks(None, {})
        return
    try:
        nvml.init_v2()
    except Exception:  # noqa: BLE001 - it is not there, say, or does not fit the driver
        yield _NvLinks(nvml, {})
        return
    try:
        handles = {}
        for place in places:
            with suppress(Exception):  # of a GPU that may not be looked at
                handles[place] = nvml.device_get_handle_by_pci_bus_id_v2(place)
        yield _NvLinks(nvml, handles)
    finally:
        nvml.shutdown()


def _installed() -> Any:
    try:
        return importlib.import_module(NVML)
    except (ImportError, OSError, RuntimeError):
        return None
