"""Limits hold on a real transfer: no time in these tests could be too long, only too short."""

from __future__ import annotations

import pytest

from tests.e2e.cluster import Cluster, make_file

MIB = 1 << 20
RATE = 4 * MIB
SIZE = 6 * MIB
AT_LEAST = 1.0
"""Seconds that 6 MiB at 4 MiB/s take at the very least: 1.5, less a burst and what comes in the same moment."""


@pytest.mark.parametrize("way", ["upload", "download"])
def test_a_limit_holds_and_can_be_lifted(cluster: Cluster, way: str) -> None:
    source, getter = cluster.agents("source", "getter")
    source.ok("register", make_file(cluster.path("f"), SIZE, seed=1), "--name", "f")
    limited = source if way == "upload" else getter
    assert limited.ok("node", "limit", f"--{way}", RATE)[way] == RATE
    assert limited.ok("node", "status")[f"{way}_limit"] == RATE
    got = getter.ok("get", "f", cluster.path("one"), "--transport", "tcp", "--no-seed")
    assert got["seconds"] >= AT_LEAST
    assert limited.ok("node", "limit", f"--{way}", 0) == {"upload": 0, "download": 0}
    getter.ok("get", "f", cluster.path("two"), "--transport", "tcp", "--no-seed")
    assert cluster.path("two").read_bytes() == cluster.path("f").read_bytes()
