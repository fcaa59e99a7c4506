"""What the verbs' numbers and errors mean to people."""

from __future__ import annotations

import errno
import resource

import pytest

from engine.errors import LockedMemoryLimit, VerbsFailed
from engine.transports.rdma.verbs.ctypes_verbs import CtypesVerbs
from engine.transports.rdma.verbs.fake_verbs import Fabric, FakeDevice, FakeVerbs
from engine.transports.rdma.verbs.interface import (
    ACTIVE,
    PORT_STATES,
    STATUS,
    Access,
    GidType,
    Verbs,
    WorkOpcode,
    failure,
    locked_memory_limit,
    meaning,
)


def test_each_status_has_a_name_and_says_something() -> None:
    assert len({each.name for each in STATUS.values()}) == len(STATUS)
    for number, each in STATUS.items():
        assert meaning(number) is each
        assert each.name.isupper()
        assert each.says


def test_only_one_status_blames_the_range_and_only_one_another_request() -> None:
    """A range that the peer refuses breaks no rail; whatever else fails does."""
    assert [number for number, each in STATUS.items() if each.refused] == [10]
    assert [number for number, each in STATUS.items() if each.flush] == [5]


def test_a_status_that_nobody_knows_is_told_by_its_number() -> None:
    unknown = meaning(99)
    assert unknown.name == "status 99"
    assert not unknown.refused
    assert not unknown.flush


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EPERM])
def test_memory_that_may_not_be_pinned_is_its_own_error(code: int) -> None:
    error = failure("ibv_reg_mr", "mlx5_0", code, pinning=5000)
    assert isinstance(error, LockedMemoryLimit)
    assert "5000 bytes" in str(error)
    assert "mlx5_0" in str(error)
    assert isinstance(failure("ibv_create_qp", "mlx5_0", code), VerbsFailed)


def test_pages_that_cannot_be_pinned_are_told_with_the_kernel_that_can() -> None:
    assert "Linux 6.2" in str(failure("ibv_reg_mr", "mlx5_0", errno.EFAULT, pinning=1))
    assert "Bad address" in str(failure("ibv_modify_qp", "mlx5_0", errno.EFAULT))


def test_a_failure_names_call_device_and_cause() -> None:
    assert str(failure("ibv_modify_qp", "mlx5_0", errno.EINVAL)).endswith(
        "ibv_modify_qp failed on mlx5_0: Invalid argument"
    )
    assert str(failure("ibv_alloc_pd", "mlx5_0", 0)).endswith("it failed")


def test_the_limit_of_locked_memory_is_this_processs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (65536, 65536))
    assert locked_memory_limit() == "65536 bytes"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert locked_memory_limit() == "unlimited"


def test_the_numbers_are_the_verbs() -> None:
    """Those of ``enum ibv_access_flags``, ``ibv_wr_opcode`` and ``ibv_port_state``."""
    assert (Access.LOCAL_WRITE, Access.REMOTE_WRITE, Access.REMOTE_READ) == (1, 2, 4)
    assert (WorkOpcode.WRITE, WorkOpcode.READ) == (0, 4)
    assert PORT_STATES.index(ACTIVE) == 4
    assert max(GidType) is GidType.ROCE_V2  # the most wanted


def test_implementations_have_what_the_interface_asks() -> None:
    fake: Verbs = FakeVerbs(Fabric([FakeDevice("a0", "10.1.0.1")]))
    assert fake.remaps
    kind: type[Verbs] = CtypesVerbs
    assert (kind.name, kind.remaps) == ("ctypes", True)
