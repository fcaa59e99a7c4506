"""Which processes belong together."""

from __future__ import annotations

import pytest

from p2pstore.errors import UsageError
from p2pstore.sharing.launch import launch_of

TORCHRUN = {
    "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "a",
    "TORCHELASTIC_RESTART_COUNT": "0", "GROUP_RANK": "0", "RANK": "1",
}  # fmt: skip


def test_processes_of_one_start_meet_over_one_object() -> None:
    launch = launch_of(TORCHRUN)
    assert (launch.rank, launch.size) == (1, 4)
    other = launch_of({**TORCHRUN, "LOCAL_RANK": "3", "RANK": "3"})
    assert launch.meeting("digest", "") == other.meeting("digest", "")
    assert launch.meeting("digest", "") != launch.meeting("another", "")
    assert launch.meeting("a", "b") != launch.meeting("ab", "")


@pytest.mark.parametrize(
    "name",
    [
        "MASTER_ADDR",
        "MASTER_PORT",
        "TORCHELASTIC_RUN_ID",
        "TORCHELASTIC_RESTART_COUNT",
        "GROUP_RANK",
        "LOCAL_WORLD_SIZE",
    ],
)
def test_those_of_another_start_do_not(name: str) -> None:
    assert launch_of(TORCHRUN).meeting("n") != launch_of({**TORCHRUN, name: "7"}).meeting("n")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "LOCAL_RANK is not set: set it, or leave share= out"),
        ({"LOCAL_RANK": "0"}, "LOCAL_WORLD_SIZE is not set"),
        ({"LOCAL_RANK": "x", "LOCAL_WORLD_SIZE": "2"}, "LOCAL_RANK='x' is no number"),
        ({"LOCAL_RANK": "-1", "LOCAL_WORLD_SIZE": "2"}, "LOCAL_RANK='-1' is no number"),
        ({"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"}, "LOCAL_RANK=2 of LOCAL_WORLD_SIZE=2 cannot be"),
        ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "0"}, "cannot be"),
        ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "129"}, "at most 128 can share"),
    ],
)
def test_slips_are_told(variables: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        launch_of(variables)
