"""How GPUs reach one another, on the fake driver and a stand-in for NVIDIA's management library."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from types import SimpleNamespace
from typing import Any

import pytest

from engine.cuda import links as module
from engine.cuda.fake_driver import FakeDriver
from engine.cuda.links import Link, links

OK, NOT_SUPPORTED = 0, 5


class Nvml:
    """As ``cuda.bindings.nvml``: these two GPUs, by PCI address, have NVLink between them."""

    GpuP2PCapsIndex = SimpleNamespace(P2P_CAPS_INDEX_NVLINK=2)
    GpuP2PStatus = SimpleNamespace(P2P_STATUS_OK=OK)

    def __init__(self, linked: set[str], *, failing: str = "") -> None:
        self.linked = linked
        self.failing = failing
        self.begun = 0

    def _may(self, call: str) -> None:
        if call == self.failing:
            raise RuntimeError(call)

    def init_v2(self) -> None:
        self._may("init_v2")
        self.begun += 1

    def shutdown(self) -> None:
        self.begun -= 1

    def device_get_handle_by_pci_bus_id_v2(self, address: str) -> str:
        self._may("device_get_handle_by_pci_bus_id_v2")
        return address

    def device_get_p2p_status(self, one: str, other: str, which: int) -> int:
        self._may("device_get_p2p_status")
        assert which == 2
        return OK if {one, other} == self.linked else NOT_SUPPORTED


@pytest.fixture
def three() -> Any:
    driver = FakeDriver(3, strangers=[(0, 2)])
    yield driver
    driver.close()


def test_peers_and_nvlink(three: FakeDriver) -> None:
    places = [three.pci_address(device) for device in range(3)]
    nvml = Nvml({places[0], places[1]})
    found = links(three, nvml)
    assert len(found) == 6
    assert Link(places[0], places[1], peer=True, nvlink=True) in found
    assert Link(places[1], places[2], peer=True, nvlink=False) in found
    assert Link(places[2], places[0], peer=False, nvlink=False) in found
    assert nvml.begun == 0


@pytest.mark.parametrize("call", ["init_v2", "device_get_handle_by_pci_bus_id_v2", "device_get_p2p_status"])
def test_a_library_that_does_not_tell(three: FakeDriver, call: str) -> None:
    nvml = Nvml(set(), failing=call)
    assert {link.nvlink for link in links(three, nvml)} == {None}
    assert nvml.begun == 0


def test_an_installation_without_it(three: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NVML", "cuda.bindings.there_is_none")
    assert {link.nvlink for link in links(three)} == {None}


def test_which_versions_have_these_calls() -> None:
    pytest.importorskip("cuda.bindings")
    numbers = tuple(int(each) for each in re.findall(r"\d+", importlib.metadata.version("cuda-bindings"))[:3])
    has = numbers >= (13, 2, 0) or (12, 9, 6) <= numbers < (13,)
    assert (importlib.util.find_spec(module.NVML) is not None) is has


def test_the_installed_one_has_these_calls() -> None:
    """So far as it can be seen without a GPU."""
    nvml = pytest.importorskip("cuda.bindings.nvml")
    assert int(nvml.GpuP2PStatus.P2P_STATUS_OK) == OK
    assert int(nvml.GpuP2PCapsIndex.P2P_CAPS_INDEX_NVLINK) == 2
    for name in ("init_v2", "shutdown", "device_get_handle_by_pci_bus_id_v2", "device_get_p2p_status"):
        assert callable(getattr(nvml, name))
