"""The pooled store over real verbs: values go over the device, between clients of ours and with upstream's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pstore.kv.client.store import Store
from p2pstore.kv.master.server import Master
from tests.interop.store_master import our_master
from tests.p2pstore.samples import MIB, content
from tests.rdma.conftest import HOSTS, OURS, THEIRS, packets
from tests.rdma.test_engine import upstream  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]
WAIT = 120
SEGMENT = 16 * MIB


@pytest.fixture
def master() -> Iterator[Master]:
    with our_master() as made:
        yield made


def store_on(device: str, master: Master, segment: int) -> Store:
    """A client that goes by the device, though the other one is in this process."""
    return Store(
        master.address, hostname=HOSTS[device], segment_size=segment, protocol="rdma", devices=device, neighbours=False
    )


def test_values_go_over_the_device(master: Master) -> None:
    values = {"one byte": b"x", "odd": content(70_001), "large": content(3 * MIB + 5, 7)}
    with store_on(THEIRS, master, SEGMENT) as owner, store_on(OURS, master, 0) as other:
        before = packets(OURS)
        for key, value in values.items():
            assert other.put(key, value)
        assert other.get_many(list(values)) == list(values.values())
        assert {key: owner.get(key) for key in values} == values
        assert other.get_range("large", 5, 100_000) == values["large"][5:100_005]
        assert packets(OURS) - before > (3 * MIB) // 4096, "TCP moved it"
        assert not other.failures


def test_upstreams_client_and_ours_get_what_the_other_put(master: Master, upstream: dict[str, str]) -> None:  # noqa: F811
    """Upstream's over its own RDMA transport; it gives memory, and so do we."""
    topology = Path(upstream["TOPOLOGY"])
    topology.write_text(json.dumps({"cpu:0": [[THEIRS], []]}))
    command = [sys.executable, "-m", "tests.rdma.upstream_pool", HOSTS[THEIRS], THEIRS, master.address]
    environment = {**upstream, "MC_CUSTOM_TOPO_JSON": str(topology)}
    with store_on(OURS, master, SEGMENT) as store:
        mine = content(MIB + 3, 3)
        assert store.put("mine", mine)
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            told = next((line for line in process.stdout if line.startswith("{")), "{}")
            assert json.loads(told) == {"got": len(mine), "put": 0}
            before = packets(OURS)
            assert store.get("theirs") == mine[::-1]
            assert packets(OURS) > before
            process.communicate("\n", timeout=WAIT)
        finally:
            process.kill()
            process.communicate()
