"""What is done to an agent's home, and to an agent that starts too early: nobody is left that nobody can reach."""

from __future__ import annotations

import os
import shutil
import signal

from tests.e2e.cluster import Agent, Cluster, Etcd, eventually, is_alive


def registered(cluster: Cluster, agent: Agent, name: str) -> None:
    path = cluster.path(name)
    path.write_bytes(os.urandom(1 << 16))
    agent.ok("register", path, "--name", name)


def test_an_agent_whose_home_is_removed_leaves(cluster: Cluster) -> None:
    agent, witness = cluster.agents("evicted", "witness")
    registered(cluster, agent, "thing")
    pid = agent.pid
    shutil.rmtree(agent.home)
    eventually(lambda: not is_alive(pid), "it has ended")
    eventually(lambda: witness.holders("thing") == {}, "and it is off the list")
    assert agent.fails(3, "node", "status")["type"] == "AgentNotRunning"
    agent.start()


def test_an_agent_in_the_foreground_says_why_it_ends(cluster: Cluster) -> None:
    agent = cluster.agent("foreground", start=False)
    running = agent.begin("node", "run")
    eventually(lambda: agent.run("node", "status").status == 0, "it answers")
    shutil.rmtree(agent.home)
    done = running.wait()
    assert done.status == 8, done
    assert f"its home {agent.home} is gone: no such file or directory" in done.err


def test_the_home_of_another_is_left_alone(cluster: Cluster) -> None:
    """The home is removed and made again, by another agent, before the first one has noticed."""
    agent = cluster.agent("first")
    pid = agent.halt()
    shutil.rmtree(agent.home)
    agent.start()
    second = agent.pid
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: not is_alive(pid), "the first one has ended")
    assert agent.status()["pid"] == second
    assert (agent.home / "run" / "agent.sock").exists()
    agent.stop()


def test_an_agent_with_its_own_etcd_takes_that_along(alone: Cluster) -> None:
    agent = alone.agent("alone", metadata=None)
    shutil.rmtree(agent.home)
    eventually(lambda: alone.processes() == [], "agent and etcd have ended")


def test_a_socket_that_is_removed_comes_back(cluster: Cluster) -> None:
    agent = cluster.agent("cleaned")
    pid = agent.pid
    with agent.frozen():  # or it may be quicker than the command
        (agent.home / "run" / "agent.sock").unlink()
        error = agent.fails(5, "node", "status")
        assert error["type"] == "AgentStarting"
        assert f"pid {pid}" in error["message"]
    eventually(lambda: agent.run("node", "status").status == 0, "it answers again")
    shutil.rmtree(agent.home / "run")
    eventually(lambda: agent.run("node", "status").status == 0, "it answers again")
    assert agent.stop()["pid"] == pid


def test_an_etcd_of_ones_own_comes_back_with_its_socket(alone: Cluster) -> None:
    agent = alone.agent("cleaned-alone", metadata=None)
    for socket in (agent.home / "run").iterdir():
        socket.unlink()
    eventually(lambda: agent.run("etcd", "inspect").status == 0, "who is not yet connected reaches etcd again")
    registered(alone, agent, "after")
    assert agent.names() == ["after"]


def test_an_agent_without_a_socket_can_be_ended(cluster: Cluster) -> None:
    agent = cluster.agent("mute")
    pid = agent.halt()
    (agent.home / "run" / "agent.sock").unlink()
    assert agent.stop()["pid"] == pid
    assert not is_alive(pid)


def test_a_stopped_agent_is_told_of_and_ended(cluster: Cluster) -> None:
    agent = cluster.agent("stopped")
    pid = agent.halt()
    error = agent.fails(5, "node", "status")
    assert f"process {pid} is stopped, and 'kill -CONT {pid}' lets it go on" in error["message"]
    stopped = agent.stop()
    assert (stopped["pid"], stopped["terminated"]) == (pid, True)
    assert not is_alive(pid)


def late(cluster: Cluster) -> Etcd:
    """An etcd that is not there yet."""
    etcd = cluster.etcd("late")
    etcd.kill()
    return etcd


def test_an_agent_that_is_started_before_etcd_waits(alone: Cluster) -> None:
    etcd = late(alone)
    agent = alone.agent("early", start=False)
    running = agent.begin("node", "run")
    word = agent.home / "waiting.json"
    eventually(word.exists, "it says that it waits")
    error = agent.fails(5, "node", "status")
    assert error["type"] == "AgentStarting"
    assert f"it waits: metadata server {etcd.url} does not answer" in error["message"]
    assert agent.fails(5, "list")["type"] == "AgentStarting"
    etcd.start()
    eventually(lambda: agent.run("node", "status").status == 0, "it has started")
    assert not word.exists()
    agent.stop()
    done = running.wait()
    assert done.status == 0, done
    assert "waiting: metadata server" in done.err


def test_an_agent_that_waits_can_be_ended(alone: Cluster) -> None:
    late(alone)
    agent = alone.agent("waiting", start=False)
    running = agent.begin("node", "run")
    eventually((agent.home / "waiting.json").exists, "it says that it waits")
    agent.stop()
    assert running.wait().status == 0
    assert agent.fails(3, "node", "status")["type"] == "AgentNotRunning"


def test_a_start_in_the_background_waits_and_says_so(alone: Cluster) -> None:
    etcd = late(alone)
    agent = alone.agent("background", start=False)
    starting = agent.begin("node", "start")
    eventually((agent.home / "waiting.json").exists, "it says that it waits")
    etcd.start()
    done = starting.wait()
    # On a slow day etcd comes after the patience has ended: then the start has failed as it should.
    assert done.status in {0, 6}, done
    assert "the agent waits: metadata server" in done.err
