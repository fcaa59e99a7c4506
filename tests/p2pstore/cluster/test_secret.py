"""A secret in a file may be changed while nodes run."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pstore.cluster.secret import ROTATION_SECONDS, ClusterSecret, cluster_secret
from p2pstore.errors import BadConfig
from tests.clocks import Clock

GIVEN = b"a secret that is long enough"


async def test_a_secret_that_was_given_does_not_change() -> None:
    assert await ClusterSecret(GIVEN).good() == (GIVEN,)


async def test_the_one_before_stays_good_for_a_while(tmp_path: Path) -> None:
    clock = Clock()
    file = tmp_path / "secret"
    file.write_bytes(GIVEN + b"\n")
    secret = ClusterSecret(file, clock=clock)
    assert await secret.good() == (GIVEN,)
    file.write_bytes(b"another that is long enough\n")
    clock.now += 5
    assert await secret.good() == (b"another that is long enough", GIVEN)
    clock.now += ROTATION_SECONDS - 1
    assert await secret.good() == (b"another that is long enough", GIVEN)
    clock.now += 2
    assert await secret.good() == (b"another that is long enough",)


async def test_a_file_that_is_gone_or_empty_for_a_moment_changes_nothing(tmp_path: Path) -> None:
    clock = Clock()
    file = tmp_path / "secret"
    file.write_bytes(GIVEN)
    secret = ClusterSecret(file, clock=clock)
    file.unlink()
    clock.now += 5
    assert await secret.good() == (GIVEN,)
    file.write_bytes(b"")
    clock.now += 5
    assert await secret.good() == (GIVEN,)
    file.write_bytes(b"another that is long enough")
    clock.now += 5
    assert (await secret.good())[0] == b"another that is long enough"


def test_a_file_that_cannot_be_read_at_first(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="No such file"):
        ClusterSecret(tmp_path / "missing")


def test_what_may_be_no_secret_to_others(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"x")
    file.chmod(0o644)
    short, open_to_all = ClusterSecret(file).doubts()
    assert short.startswith("the cluster secret has 1 byte,")
    assert open_to_all == f"everybody on this host can read the cluster secret in {file}; run 'chmod o-rwx {file}'"
    assert ClusterSecret(GIVEN).doubts() == []


def test_whatever_was_given() -> None:
    assert cluster_secret(None) is None
    made = cluster_secret(GIVEN)
    assert isinstance(made, ClusterSecret)
    assert cluster_secret(made) is made
