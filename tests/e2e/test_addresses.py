"""Two hosts on one network, in network namespaces: what an agent is told to listen on, and what it tells the others."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from p2pstore.agent.embedded_etcd import find_etcd
from tests.e2e.cluster import Agent, Cluster, Done, eventually
from tests.p2pstore.samples import content

HERE, THERE = "10.99.7.1", "10.99.7.2"
HERE6, THERE6 = "fd00:99::1", "fd00:99::2"
CARD = "card0"
PORT = 2379


class Host:
    """A network namespace, which lives as long as a process in it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.children: list[subprocess.Popen[bytes]] = []
        self.process = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "echo up; exec sleep 3600"],
            env=cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.prefix = ["nsenter", "-t", str(self.process.pid), "-n"]
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        if self.process.stdout.readline() != "up\n":
            pytest.skip(f"no network namespaces here: {self.process.stderr.read().strip()}")
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *words: str) -> None:
        done = subprocess.run([*self.prefix, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{' '.join(words)}: {done.stderr.strip()}")

    def etcd(self, host: str) -> str:
        """Start one that others reach; its URL. Whoever starts an agent waits for it."""
        client, peer = f"http://{host}:{PORT}", f"http://{host}:{PORT + 1}"
        options = {
            "data-dir": self.cluster.root / "etcd-here",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }
        command = [*self.prefix, find_etcd(), *(f"--{key}={value}" for key, value in options.items())]
        with (self.cluster.root / "etcd-here.log").open("wb") as log:
            self.children.append(subprocess.Popen(command, env=self.cluster.environment, stdout=log, stderr=log))
        return f"etcd://{host}:{PORT}"

    def agent(self, name: str, metadata: str, listen: str) -> tuple[Agent, Done]:
        """An agent here, and what its start said."""
        agent = self.cluster.agent(name, metadata=metadata, start=False)
        started = agent.begin("node", "start", "--listen", listen, "--insecure", prefix=self.prefix).wait()
        return agent, started

    def close(self) -> None:
        for child in (self.process, *self.children):
            child.kill()
            child.communicate()


@pytest.fixture
def hosts(alone: Cluster) -> Iterator[tuple[Host, Host]]:
    """Two, whose cards are one cable's ends; neither has a default route."""
    made: list[Host] = []
    try:
        made += [Host(alone)]
        made += [Host(alone)]
        here, there = made
        other = ["peer", "name", CARD, "netns", str(there.process.pid)]
        here.run("ip", "link", "add", CARD, "type", "veth", *other)
        for host, address, address6 in ((here, HERE, HERE6), (there, THERE, THERE6)):
            host.run("ip", "addr", "add", f"{address}/24", "dev", CARD)
            host.run("ip", "-6", "addr", "add", f"{address6}/64", "dev", CARD, "nodad")
            host.run("ip", "link", "set", CARD, "up")
        yield here, there
    finally:
        for host in made:
            host.close()


def comes_over(source: Agent, getter: Agent, there: Host) -> bool:
    """Whether what the one registers is got by the other, byte for byte."""
    cluster = source.cluster
    (cluster.work / "f").write_bytes(content(1 << 20))
    source.ok("register", cluster.work / "f", "--name", "f")
    dest = cluster.work / "out"
    done = getter.begin("get", "f", dest, "--transport", "tcp", prefix=there.prefix).wait()
    assert done.status == 0, f"{done}\n{getter.log()}"
    return dest.read_bytes() == (cluster.work / "f").read_bytes()


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        ("0.0.0.0:7300", HERE),
        ("[::]:7300", HERE),
        (f"{CARD}:7300", HERE),
        ("10.99.7.0/24:7300", HERE),
        ("[fd00:99::/64]:7300", f"[{HERE6}]"),
    ],
)
def test_others_are_told_an_address_that_they_reach(hosts: tuple[Host, Host], listen: str, told: str) -> None:
    here, there = hosts
    metadata = here.etcd(HERE)
    source, started = here.agent("source", metadata, listen)
    assert started.status == 0, started
    assert "warning" not in started.err
    assert source.status()["control"] == f"{told}:7300"
    getter, _ = there.agent("getter", metadata, listen)
    assert comes_over(source, getter, there)


def test_a_second_card_with_the_default_route_is_not_told(hosts: tuple[Host, Host]) -> None:
    here, _ = hosts
    here.run("ip", "link", "add", "wan0", "type", "veth", "peer", "name", "wan1")
    here.run("ip", "addr", "add", "192.168.77.1/24", "dev", "wan0")
    for card in ("wan0", "wan1"):
        here.run("ip", "link", "set", card, "up")
    here.run("ip", "route", "add", "default", "via", "192.168.77.254")
    source, started = here.agent("source", here.etcd(HERE), "0.0.0.0:7300")
    assert started.status == 0, started
    assert source.status()["control"] == f"{HERE}:7300"


def test_loopback_is_warned_of_where_etcd_is_for_others(hosts: tuple[Host, Host], alone: Cluster) -> None:
    """What ``hostname -i`` says on Debian."""
    here, _ = hosts
    source, started = here.agent("source", here.etcd(HERE), "127.0.1.1:7400")
    warning = "this node listens on 127.0.1.1, which is loopback: no other machine can get from it"
    assert started.status == 0, started
    assert f"warning: {warning}; this host has {HERE} ({CARD})" in started.err
    path = alone.work / "f"
    path.write_bytes(b"f")
    registered = source.run("register", path, "--name", "f")
    assert registered.status == 0, registered
    assert warning in registered.err
    examined = source.begin("doctor", "--json", prefix=here.prefix).wait()
    (check,) = [each for each in examined.json["checks"] if each["subject"] == "published address"]
    assert check["verdict"] == "warning"
    assert check["detail"].startswith(warning)


def test_hosts_with_ipv6_alone(hosts: tuple[Host, Host]) -> None:
    for host, address in zip(hosts, (HERE, THERE), strict=True):
        host.run("ip", "addr", "del", f"{address}/24", "dev", CARD)
        host.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    here, there = hosts
    metadata = here.etcd(f"[{HERE6}]")
    source, started = here.agent("source", metadata, "[::]:7300")
    assert started.status == 0, started
    assert source.status()["control"] == f"[{HERE6}]:7300"
    getter, started = there.agent("getter", metadata, "127.0.0.1")
    assert started.status == 0, started
    assert getter.status()["listen"] == "127.0.0.1"
    assert getter.status()["control"].startswith("[::1]:")
    assert comes_over(source, getter, there)


def test_a_place_that_is_not_there_is_named(hosts: tuple[Host, Host]) -> None:
    here, _ = hosts
    _, started = here.agent("source", here.etcd(HERE), "10.55.0.0/16:7300")
    assert started.status == 2, started
    assert f"no address of this host is in 10.55.0.0/16; it has {HERE} ({CARD})" in started.err


def test_a_card_that_comes_late_is_waited_for(hosts: tuple[Host, Host]) -> None:
    here, _ = hosts
    agent = here.cluster.agent("source", metadata=here.etcd(HERE), start=False)
    running = agent.begin("node", "run", "--listen", "10.55.0.0/16:7300", "--insecure", prefix=here.prefix)
    word = agent.home / "waiting.json"
    eventually(lambda: word.exists() and "10.55.0.0/16" in word.read_text(), "it says that it waits")
    here.run("ip", "addr", "add", "10.55.3.4/16", "dev", CARD)
    eventually(lambda: agent.run("node", "status").status == 0, "it has started")
    assert agent.status()["control"] == "10.55.3.4:7300"
    agent.stop()
    assert running.wait().status == 0
