"""What is said on the wire to connect, and to be granted a range: upstream's fields, ours, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import RemoteProtocolError
from engine.transports.rdma.setup import Extent, GrantRequest, Setup, granted, read_grant, refused
from engine.transports.rdma.verbs.fake_verbs import mapped_gid

UPSTREAMS = {
    "protocol": "", "payload": "", "local_nic_path": "10.0.0.1:12345@mlx5_0", "local_lid": 0,
    "local_gid": "00:00:00:00:00:00:00:00:00:00:ff:ff:0a:00:00:01", "peer_nic_path": "10.0.0.2:7301@mlx5_1",
    "qp_num": [17, 18], "ready_ack": False, "reply_msg": "",
}  # fmt: skip


def test_upstreams_request_is_understood() -> None:
    found = Setup.from_json(UPSTREAMS, peer="p")
    assert found == Setup(
        "10.0.0.1:12345@mlx5_0", "10.0.0.2:7301@mlx5_1", (17, 18), mapped_gid("10.0.0.1"), session=False
    )
    assert (found.local_nic.rpartition("@")[2], found.peer_device) == ("mlx5_0", "mlx5_1")


def test_ours_has_upstreams_fields_and_reads_back() -> None:
    ours = Setup("a@x", "b@y", (5,), mapped_gid("1.2.3.4"), 7, 4096, 16, 8, session=True, replaces=(3, 4))
    body = ours.to_json()
    assert set(UPSTREAMS) - {"protocol", "payload", "ready_ack"} <= set(body)
    assert Setup.from_json(body, peer="p") == ours
    plain = Setup("a@x", "b@y", (5,), mapped_gid("1.2.3.4"), 7).to_json()
    assert not [name for name in plain if name.startswith("mooncake_cli")]


def test_a_rejection_needs_no_queue_pairs() -> None:
    assert Setup.from_json({"reply_msg": "no such device"}, peer="p").reject == "no such device"


@pytest.mark.parametrize(
    ("name", "value"),
    [("qp_num", []), ("qp_num", [1] * 65), ("qp_num", "17"), ("qp_num", [-1]), ("qp_num", [1 << 32]), ("qp_num", [True]),
     ("local_lid", 70_000), ("local_nic_path", 5), ("reply_msg", None), ("mooncake_cli_mtu", 5000),
     ("mooncake_cli_replaces", 5), ("mooncake_cli_replaces", [1] * 65)],
)  # fmt: skip
def test_what_is_not_allowed(name: str, value: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        Setup.from_json({**UPSTREAMS, name: value}, peer="p")


ASK = GrantRequest(3, 1 << 40, 5000, (1, 2))
EXTENTS = [Extent(4096, 1 << 45, {"x": 7}), Extent(904, 99, {"x": 8, "y": 9})]


def test_a_grant_goes_there_and_back() -> None:
    assert GrantRequest.from_json(ASK.to_json(), peer="p") == ASK
    assert read_grant(granted(3, EXTENTS), ASK, peer="p") == (EXTENTS, "")
    assert read_grant(refused(3, "it is not served"), ASK, peer="p") == ([], "it is not served")


@pytest.mark.parametrize(
    "body",
    [granted(4, EXTENTS), granted(3, EXTENTS[:1]), granted(3, [*EXTENTS, EXTENTS[0]]), {"mooncake_cli_grant": 3},
     {"mooncake_cli_grant": 3, "extents": [[5000, 1]]}, {"mooncake_cli_grant": 3, "extents": [[5000, 1, []]]},
     {"mooncake_cli_grant": 3, "extents": [[5000, 1, {"x": -1}]]}, {"mooncake_cli_grant": 3, "extents": [[0, 1, {}]]},
     {"mooncake_cli_grant": 3, "extents": [[-5, 1, {}], [5005, 1, {}]]}, {}],
)  # fmt: skip
def test_a_grant_of_something_else_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        read_grant(body, ASK, peer="p")


@pytest.mark.parametrize("body", [{}, {"mooncake_cli_grant": [1, 2]}, {"mooncake_cli_grant": [1, 2, -3]},
                                  {"mooncake_cli_grant": [1, 2, 3], "mooncake_cli_release": 5}])  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        GrantRequest.from_json(body, peer="p")
