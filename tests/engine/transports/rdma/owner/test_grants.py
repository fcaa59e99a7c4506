"""What the owner registers: in windows, once, as long as there is room, and not a moment longer than it is served."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cuda.device_buffer import DeviceBuffer
from engine.cuda.device_memory import device_memory
from engine.errors import AddressError, LockedMemoryLimit
from engine.memory.address_space import AddressSpace
from engine.memory.buffers import FilesBuffer, MemoryBuffer
from engine.memory.file_spans import FileSpan
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.owner.grants import AT_ONCE, MAX_GRANT, WINDOW, Owner
from engine.transports.rdma.verbs.fake_verbs import Fabric
from tests.engine.cuda.gpus import Array, fake, nothing_left

MIB = 1 << 20


@pytest.fixture
def nics(open_nics: Callable[..., Nics]) -> Nics:
    return open_nics("b0")


@pytest.fixture
def space() -> AddressSpace:
    return AddressSpace()


@pytest.fixture
def owner(space: AddressSpace) -> Owner:
    return Owner(space, remaps=True)


def file_of(space: AddressSpace, path: Path, size: int, **options: object) -> int:
    with path.open("wb") as file:
        file.truncate(size)
    return space.register(FilesBuffer("f", [FileSpan(str(path), size)], **options))  # type: ignore[arg-type]


def test_a_window_is_registered_once_for_all_who_ask(
    space: AddressSpace, owner: Owner, nics: Nics, fabric: Fabric, tmp_path: Path
) -> None:
    base = file_of(space, tmp_path / "f", 3 * WINDOW)
    one, extents = owner.grant(base + 5, 100, list(nics))
    assert [each.length for each in extents] == [100]
    other, across = owner.grant(base + WINDOW - 10, 20, list(nics))
    assert [each.length for each in across] == [10, 10]
    assert len(fabric.regions) == 2
    assert sum(region.length for region in fabric.regions.values()) == 2 * WINDOW
    owner.release(one)
    owner.release(other)
    owner.release(other)
    assert (owner.grants, owner.pinned_bytes) == (0, 2 * WINDOW)  # kept for others
    owner.close()
    assert not fabric.regions


def test_what_nobody_uses_makes_room(space: AddressSpace, nics: Nics, fabric: Fabric, tmp_path: Path) -> None:
    owner = Owner(space, remaps=True, budget=2 * WINDOW)
    base = file_of(space, tmp_path / "f", 8 * WINDOW)
    for number in range(8):
        grant, _ = owner.grant(base + number * WINDOW, WINDOW, list(nics))
        owner.release(grant)
        assert owner.pinned_bytes <= 2 * WINDOW
    assert len(fabric.regions) == 2
    owner.close()


def test_where_no_more_can_be_pinned_the_unused_goes_first(
    space: AddressSpace, owner: Owner, nics: Nics, fabric: Fabric, tmp_path: Path
) -> None:
    base = file_of(space, tmp_path / "f", 2 * WINDOW)
    grant, _ = owner.grant(base, 10, list(nics))
    owner.release(grant)
    device = fabric.devices["b0"]
    device.pinnable = 0
    with pytest.raises(LockedMemoryLimit, match="cannot be pinned for b0"):
        owner.grant(base + WINDOW, 10, list(nics))
    assert not fabric.regions
    device.pinnable = 1 << 40
    owner.grant(base + WINDOW, 10, list(nics))
    owner.close()


def test_a_file_that_is_still_written_is_registered_just_as_far_as_is_granted(
    space: AddressSpace, owner: Owner, nics: Nics, fabric: Fabric, tmp_path: Path
) -> None:
    base = file_of(space, tmp_path / "f", 2 * WINDOW, servable=lambda offset, length: offset >= MIB)
    with pytest.raises(AddressError):
        owner.grant(base, MIB, list(nics))
    grant, _ = owner.grant(base + MIB, MIB, list(nics))
    (region,) = fabric.regions.values()
    assert region.length == MIB
    owner.release(grant)
    assert not fabric.regions  # its pages may be others by the next time


def test_what_is_withdrawn_is_gone_at_once(
    space: AddressSpace, owner: Owner, nics: Nics, fabric: Fabric, tmp_path: Path
) -> None:
    base = file_of(space, tmp_path / "f", WINDOW)
    data = bytearray(os.urandom(100))
    other = space.register(MemoryBuffer("m", data))
    owner.grant(base, 10, list(nics))
    grant, _ = owner.grant(other, 100, list(nics))
    space.unregister(base, withdraw=lambda: owner.withdraw(base))
    assert len(fabric.regions) == 1
    with pytest.raises(AddressError):
        owner.grant(base, 10, list(nics))
    owner.release(grant)
    with pytest.raises(BufferError):
        data.append(1)  # still registered, for others
    assert space.unregister(other, withdraw=lambda: owner.withdraw(other))
    data.append(1)
    assert not fabric.regions


def test_what_was_replaced_is_not_kept(
    space: AddressSpace, owner: Owner, nics: Nics, fabric: Fabric, tmp_path: Path
) -> None:
    base = file_of(space, tmp_path / "f", WINDOW)
    owner.release(owner.grant(base, 10, list(nics))[0])
    assert fabric.regions
    space.replace(base, FilesBuffer("f", [FileSpan(str(tmp_path / "f"), WINDOW)]))
    owner.replaced(base)
    assert not fabric.regions


def test_a_grant_is_bounded(space: AddressSpace, owner: Owner, nics: Nics, tmp_path: Path) -> None:
    base = file_of(space, tmp_path / "f", 2 * MAX_GRANT)
    with pytest.raises(AddressError):
        owner.grant(base, MAX_GRANT + 1, list(nics))


def test_a_file_that_was_cut_short_is_refused(
    space: AddressSpace, owner: Owner, nics: Nics, fabric: Fabric, tmp_path: Path
) -> None:
    from engine.files.stamps import FileStamp

    path = tmp_path / "f"
    path.write_bytes(bytes(1000))
    stamp = FileStamp.of(path.stat())
    base = space.register(FilesBuffer("f", [FileSpan(str(path), 1000, stamp)]))
    path.write_bytes(bytes(10))
    with pytest.raises(AddressError):
        owner.grant(base, 1000, list(nics))
    assert not fabric.regions


def test_many_windows_are_let_go_behind_the_callers_back(
    space: AddressSpace, owner: Owner, nics: Nics, fabric: Fabric, tmp_path: Path
) -> None:
    count = AT_ONCE + 1
    base = file_of(space, tmp_path / "f", count * WINDOW)
    for number in range(count):
        owner.release(owner.grant(base + number * WINDOW, 1, list(nics))[0])
    assert len(fabric.regions) == count
    space.unregister(base, withdraw=lambda: owner.withdraw(base))
    owner.close()  # waits for them
    assert not fabric.regions


def test_memory_of_a_gpu_is_copied_for_each_who_asks(
    space: AddressSpace, owner: Owner, nics: Nics, fabric: Fabric
) -> None:
    """Its network card cannot read that by itself; and what was copied before may have changed."""
    data = bytes(range(256)) * 40
    with fake() as gpu:
        views = [memoryview(data), device_memory(Array(gpu, data), "it")]
        buffer = DeviceBuffer("it", views)
        base = space.register(buffer)
        grant, extents = owner.grant(base + len(data) - 10, 1000, list(nics))
        assert [each.length for each in extents] == [1000]
        (region,) = fabric.regions.values()
        assert region.length == 1000
        owner.release(grant)
        assert owner.pinned_bytes == 0
        assert not fabric.regions
        owner.close()
        space.unregister(base)
        nothing_left(gpu)
