"""An agent in another mount namespace than the command: a container, or a unit of systemd with a /tmp of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.cluster import Agent, Cluster
from tests.p2pstore.samples import content

PRIVATE = 'mount -t tmpfs none "$0" && exec "$@"'
"""What a shell does in a new mount namespace: hide a directory under an empty one, and go on."""


@pytest.fixture
def hidden(cluster: Cluster) -> Path:
    """A directory that is another one for the agent."""
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    directory = cluster.work / "hidden"
    directory.mkdir()
    return directory


@pytest.fixture
def agent(cluster: Cluster, hidden: Path) -> Agent:
    owner = cluster.agent("owner")
    (cluster.work / "f").write_bytes(content(3 << 20))
    owner.ok("register", "f", "--name", "f")
    agent = cluster.agent("apart", start=False)
    prefix = ["unshare", "-m", "sh", "-c", PRIVATE, str(hidden)]
    done = agent.begin("node", "start", prefix=prefix).wait()
    assert done.status == 0, done
    return agent


def test_nothing_is_put_where_its_user_cannot_see_it(cluster: Cluster, agent: Agent, hidden: Path) -> None:
    error = agent.fails(7, "get", "f", hidden / "out")
    assert error["type"] == "OtherView"
    assert error["fields"]["path"] == str(hidden)
    assert os.listdir(hidden) == []
    assert agent.fails(7, "get", "f", hidden, "--force")["type"] == "OtherView", "itself is a mount over there"


def test_nothing_is_published_but_what_its_user_sees(cluster: Cluster, agent: Agent, hidden: Path) -> None:
    (hidden / "g").write_bytes(b"g")
    assert agent.fails(7, "register", hidden / "g", "--name", "g")["type"] == "OtherView"
    assert agent.fails(7, "register", hidden, "--name", "g")["type"] == "OtherView"
    (cluster.work / "other").write_bytes(b"other")
    assert agent.fails(7, "register", hidden / "g", cluster.work / "other", "--name", "g/")["type"] == "OtherView"
    assert agent.fails(7, "verify", hidden / "g")["type"] == "OtherView"
    assert agent.fails(7, "register", cluster.work, "--name", "g")["type"] == "OtherView", "it has a mount below it"


def test_what_both_see_works_as_ever(cluster: Cluster, agent: Agent) -> None:
    result = agent.ok("get", "f", cluster.work / "out", "--transport", "tcp")
    assert (cluster.work / "out").read_bytes() == (cluster.work / "f").read_bytes()
    assert not {"seen", "view"} & set(result)
    (cluster.work / "h").write_bytes(b"h")
    agent.ok("register", cluster.work / "h", "--name", "h")
