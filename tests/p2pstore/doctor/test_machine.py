"""Limits and devices: what is too little is said, with what to do about it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.net import sockets
from engine.transports.rdma.nics import DeviceReport
from engine.transports.rdma.verbs.interface import Gid, GidType, LinkLayer, PortInfo
from p2pstore.doctor.loopback import check_transports
from p2pstore.doctor.machine import (
    check_clock,
    check_devices,
    check_limits,
    check_place,
    check_ports,
    check_verbs,
)
from tests.ports import reserved_port

GID = Gid(1, bytes(10) + b"\xff\xff" + bytes([10, 77, 0, 1]), GidType.ROCE_V2, "veth0")
UP = PortInfo("ACTIVE", LinkLayer.ETHERNET, 0, 4096, 1 << 30)


def limits(tmp_path: Path, files: str, memory: str) -> Path:
    (tmp_path / "7").mkdir()
    lines = ["Limit                     Soft Limit           Hard Limit           Units     "]
    lines += [f"Max open files            {files}                 1048576              files     "]
    lines += [f"Max locked memory         {memory}              unlimited            bytes     "]
    (tmp_path / "7" / "limits").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.parametrize(
    ("files", "memory", "rdma", "verdicts"),
    [
        ("1048576", "unlimited", True, ["ok", "ok"]),
        ("unlimited", "65536", False, ["ok", "ok"]),
        ("256", "8388608", True, ["warning", "failed"]),
    ],
)
def test_limits(tmp_path: Path, files: str, memory: str, rdma: bool, verdicts: list[str]) -> None:
    checks = list(check_limits(7, "the agent", rdma=rdma, proc=limits(tmp_path, files, memory)))
    assert [c.verdict for c in checks] == verdicts
    assert all(c.advice for c in checks if c.verdict != "ok")
    assert all("the agent" in c.detail for c in checks)


def test_limits_of_this_process_are_found() -> None:
    assert len(list(check_limits(os.getpid(), "us", rdma=False))) == 2


def test_a_process_that_is_gone_has_no_limits(tmp_path: Path) -> None:
    assert list(check_limits(1, "it", rdma=False, proc=tmp_path)) == []


def test_devices_and_why_one_is_not_used() -> None:
    good = DeviceReport("rxe0", 1, info=UP, gid=GID, gids=(GID, GID))
    bad = DeviceReport(
        "mlx5_1", 1, reason="its port is DOWN, not ACTIVE", info=PortInfo("DOWN", LinkLayer.INFINIBAND, 3, 4096, 1)
    )
    fine, wrong = check_devices([good, bad])
    assert (fine.verdict, fine.subject) == ("ok", "RDMA rxe0 port 1")
    assert "MTU 4096" in fine.detail
    assert "GID 1 10.77.0.1" in fine.detail
    assert wrong.verdict == "warning"
    assert "its port is DOWN" in wrong.detail


def test_no_device_is_no_failure() -> None:
    (check,) = check_devices([])
    assert check.verdict == "warning"


def test_ports_that_are_taken_and_free() -> None:
    port = reserved_port()  # another would be anybody's once it is free
    with sockets.listen("127.0.0.1", port):
        first = next(iter(check_ports(f"127.0.0.1:{port}")))
    assert (first.verdict, first.subject, first.code) == ("failed", f"port {port}", 2)
    assert "--listen" in first.advice
    assert next(iter(check_ports(f"127.0.0.1:{port}"))).verdict == "ok"
    assert list(check_ports("127.0.0.1")) == [], "any port will do"


def test_of_a_choice_of_ports_three_must_be_free_together() -> None:
    first = reserved_port(7)
    choice = f"127.0.0.1:{first}-{first + 6}"
    with sockets.listen("127.0.0.1", first + 1):
        checks = list(check_ports(choice))
        assert [(c.subject, c.verdict) for c in checks] == [(f"port {first + n}", "ok") for n in (3, 4, 5)]
        with sockets.listen("127.0.0.1", first + 5):
            assert [c.verdict for c in check_ports(choice)] == ["ok", "failed", "ok"]


def test_what_an_agent_would_tell_others() -> None:
    (well,) = check_place("127.0.0.1", "", [])
    assert (well.verdict, well.detail) == ("ok", "127.0.0.1, listening on 127.0.0.1")
    (doubtful,) = check_place("127.0.0.1:7300", "", [("198.51.100.1", 2379)])
    assert (doubtful.verdict, doubtful.subject) == ("warning", "published address")
    assert "127.0.0.1, which is loopback" in doubtful.detail
    for listen, advertise in (("198.51.100.0/24:7300", ""), ("127.0.0.1", "198.51.100.0/24")):
        (bad,) = check_place(listen, advertise, [])
        assert (bad.verdict, bad.code) == ("failed", 2)
        assert "no address of this host is in 198.51.100.0/24" in bad.detail
    assert list(check_ports("198.51.100.0/24:7300")) == [], "the check of the place says it"


def test_the_clock_is_asked() -> None:
    assert check_clock().verdict in {"ok", "warning"}


def test_both_ways_to_the_verbs_are_tried() -> None:
    checks = {c.subject: c for c in check_verbs()}
    assert set(checks) == {"libibverbs", "pyverbs"}
    assert all(c.advice for c in checks.values() if c.verdict != "ok")


def test_transports_move_bytes() -> None:
    checks = list(check_transports(rdma=False))
    assert [(c.subject, c.verdict) for c in checks] == [("tcp to ourselves", "ok"), ("local to ourselves", "ok")]
