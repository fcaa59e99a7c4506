"""Eight hosts, in network namespaces with cards of their own, that bring the same files of a web server together."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pstore.agent.embedded_etcd import find_etcd
from p2pstore.bench.namespaces import Namespaces
from p2pstore.errors import MooncakeError
from tests.e2e.cluster import ROOT, Agent, Cluster, eventually
from tests.p2pstore.samples import MIB, content

HOSTS = 8
RATE = 125e6
"""Of each card: 1 Gbit/s."""

SIZES = {"/big.bin": 50 * MIB + 5, "/small.bin": 3 * MIB, "/config.json": 100}

SERVER = """
import json, sys
from tests.p2pstore.origins.stand_in import WebStandIn
from tests.p2pstore.samples import content
server = WebStandIn(host=sys.argv[1])
server.files.update({path: content(size) for path, size in json.loads(sys.argv[2]).items()})
print(server.url, flush=True)
for _ in sys.stdin:
    print(json.dumps(server.sent), flush=True)
"""


@pytest.fixture
def hosts() -> Iterator[Namespaces]:
    made = Namespaces([RATE] * HOSTS)
    try:
        made.up()
    except (MooncakeError, OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"NO NAMESPACES: {error}")
    try:
        yield made
    finally:
        made.down()


@contextlib.contextmanager
def etcd_in(hosts: Namespaces, directory: Path) -> Iterator[str]:
    url, peer = f"http://{hosts.hub_address}:2379", f"http://{hosts.hub_address}:2380"
    given = ["--data-dir", str(directory), "--listen-client-urls", url, "--advertise-client-urls", url]
    given += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
    with directory.with_suffix(".log").open("w") as log:
        command = hosts.command(hosts.hub, [find_etcd(), *given, "--log-level", "error"])
        process = subprocess.Popen(command, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]})
    try:
        yield f"etcd://{hosts.hub_address}:2379"
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_eight_getters_read_each_file_once(alone: Cluster, hosts: Namespaces, tmp_path: Path) -> None:
    cluster = alone
    command = [sys.executable, "-c", SERVER, hosts.hub_address, json.dumps(SIZES)]
    with (
        etcd_in(hosts, tmp_path / "etcd") as metadata,
        subprocess.Popen(
            hosts.command(hosts.hub, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as server,
    ):
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            agents = [Agent(cluster, f"host{number}", metadata=metadata, environment={}) for number in range(HOSTS)]

            def start(number: int) -> bool:
                given = ("node", "start", "--listen", hosts.address(number), "--insecure", "--json")
                done = agents[number].begin(*given, prefix=hosts.command(hosts.host(number), [])).wait()
                assert done.status == 0, f"{done}\n{agents[number].log()}"
                return True

            eventually(lambda: start(0), "the first agent finds etcd")
            for number in range(1, HOSTS):
                start(number)
            for path, size in SIZES.items():
                begun = [agent.begin("register", url + path, "--json") for agent in agents]
                done = [each.wait(200) for each in begun]
                assert [each.status for each in done] == [0] * HOSTS, [*map(str, done), *(a.log() for a in agents)]
                assert len({each.json["manifest"] for each in done}) == 1
                assert Path(done[-1].json["path"]).read_bytes() == content(size)
            server.stdin.write("\n")
            server.stdin.flush()
            assert json.loads(server.stdout.readline()) == SIZES
        finally:
            for agent in agents:
                agent.run("node", "stop", "-q")
            server.kill()
