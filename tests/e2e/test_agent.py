"""The life of an agent: one a home, killed and started again, its sources changed behind its back, its etcd killed."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.cluster import Agent, Cluster, Etcd, Running, eventually, is_alive, make_file

MIB = 1 << 20


def registered(agent: Agent, file: str, seed: int = 0, size: int = 3 * MIB) -> tuple[Path, str]:
    """A file registered on ``agent``: its path and its name."""
    path, name = make_file(agent.cluster.path(file), size, seed), file
    agent.ok("register", path, "--name", name)
    return path, name


def test_status_start_and_stop(cluster: Cluster) -> None:
    agent = cluster.agent("one", start=False)
    error = agent.fails(3, "node", "status")
    assert (error["type"], error["advice"]) == ("AgentNotRunning", f"run 'mooncake --home {agent.home} node start'")
    assert agent.stop()["pid"] is None
    agent.start()
    status = agent.status()
    assert status["metadata"] == cluster.metadata
    assert (status["objects"], status["home"]) == (0, str(agent.home))
    pid = status["pid"]
    assert agent.stop()["pid"] == pid
    assert not is_alive(pid)
    assert agent.fails(3, "node", "status")["type"] == "AgentNotRunning"


@pytest.mark.parametrize("how", ["start", "run"])
def test_a_second_agent_in_one_home_is_refused_with_the_firsts_pid(shared: Cluster, source: Agent, how: str) -> None:
    error = source.fails(7, "node", how)
    assert error["type"] == "AgentRunning"
    assert error["fields"]["pid"] in {source.pid, str(source.pid)}
    assert str(source.pid) in error["message"]
    assert is_alive(source.pid)


def test_several_commands_at_once_start_one_agent(cluster: Cluster) -> None:
    agent = cluster.agent("crowded", start=False)
    paths = [make_file(cluster.path(f"crowd-{n}"), MIB, n) for n in range(4)]
    commands = [agent.begin("register", p, "--name", p.name, "--json") for p in paths]
    done = [command.wait() for command in commands]
    assert [d.status for d in done] == [0, 0, 0, 0], "\n".join(map(str, done))
    assert sum("started an agent" in d.err for d in done) == 1
    assert agent.status()["objects"] == 4


def test_run_serves_in_the_foreground_until_sigterm(cluster: Cluster) -> None:
    agent = cluster.agent("foreground", start=False)
    running = agent.begin("node", "run")
    eventually(lambda: agent.run("node", "status").status == 0, "it answers")
    assert agent.pid == running.process.pid
    _, name = registered(agent, "foreground")
    assert set(agent.holders(name)) == {agent.name}
    running.send(signal.SIGTERM)
    done = running.wait()
    assert done.status == 0, done
    assert done.out == ""


def test_sigterm_leaves_the_cluster_at_once(cluster: Cluster) -> None:
    leaver, stayer = cluster.agent("leaver", MOONCAKE_LEASE_TTL="600"), cluster.agent("stayer")
    _, name = registered(leaver, "left")
    stayer.ok("get", name, cluster.path("left-copy"))
    assert set(stayer.holders(name)) == {leaver.name, stayer.name}
    pid = leaver.signal(signal.SIGTERM)
    eventually(lambda: not is_alive(pid), "it ended")
    # Its lease would have lasted ten minutes: only a revoked one explains this.
    assert set(stayer.holders(name)) == {stayer.name}
    assert leaver.name not in str(stayer.ok("etcd", "inspect", "--prefix", "mooncake/p2p/v1/nodes/"))


def test_a_killed_agent_disappears_by_its_lease(cluster: Cluster) -> None:
    victim, witness = cluster.agents("victim", "witness")
    _, name = registered(victim, "lost")
    assert set(witness.holders(name)) == {victim.name}
    victim.kill()
    eventually(lambda: witness.holders(name) == {}, "the lease ran out")
    assert name not in witness.names()
    error = witness.fails(5, "get", name, cluster.path("lost-copy"))
    assert error["type"] == "HolderGone"
    assert victim.name in error["message"]


def test_after_kill_9_a_start_recovers_from_stale_socket_and_pid(cluster: Cluster) -> None:
    agent, other = cluster.agents("phoenix", "other")
    path, name = registered(agent, "phoenix")
    pid = agent.pid
    agent.kill()
    assert (agent.home / "run" / "agent.sock").exists(), "the test is about a stale socket"
    assert agent.pid == pid, "and a stale pid"
    assert agent.fails(3, "node", "status")["type"] == "AgentNotRunning"
    agent.start()
    assert agent.pid != pid
    assert agent.status()["objects"] == 1
    dest = cluster.path("phoenix-copy")
    other.ok("get", name, dest, "--transport", "tcp")
    assert dest.read_bytes() == path.read_bytes(), "it serves again what it served before"


def test_a_stale_pid_that_now_is_another_process_disturbs_nobody(cluster: Cluster) -> None:
    agent = cluster.agent("impostor")
    agent.kill()
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            (agent.home / "agent.lock").write_text(f"{stranger.pid}\n")
            assert agent.stop()["pid"] is None
            assert stranger.poll() is None
            agent.start()
            agent.stop()
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_one_content_at_several_places_and_names_survives_a_restart(cluster: Cluster) -> None:
    agent = cluster.agent("twice")
    path, name = registered(agent, "twice")
    agent.ok("register", path, "--name", "again")
    agent.ok("get", name, cluster.path("twice-copy"))
    agent.stop()
    agent.start()
    assert agent.status()["objects"] == 2
    for known in (name, "again"):
        assert agent.holders(known)[agent.name]["role"] == "gold"


def test_sources_changed_while_the_agent_was_down(cluster: Cluster) -> None:
    agent, other = cluster.agents("sleeper", "other")
    other_content, other_name = registered(agent, "other-content", 1)
    shorter, shorter_name = registered(agent, "shorter", 2)
    touched, touched_name = registered(agent, "touched", 3)
    replaced, replaced_name = registered(agent, "replaced-by-an-equal", 4)
    removed, removed_name = registered(agent, "removed", 5)
    agent.stop()
    stamp = other_content.stat()
    other_content.write_bytes(make_file(cluster.path("new"), 3 * MIB, 6).read_bytes())
    assert other_content.stat().st_size == stamp.st_size
    os.truncate(shorter, MIB)
    touched.touch()
    equal = cluster.path("equal")
    equal.write_bytes(replaced.read_bytes())
    equal.rename(replaced)
    removed.unlink()
    agent.start()
    assert agent.status()["objects"] == 2, agent.log()
    assert agent.holders(other_name) == agent.holders(shorter_name) == agent.holders(removed_name) == {}
    for path, name in ((touched, touched_name), (replaced, replaced_name)):
        dest = cluster.path(f"{path.name}-copy")
        other.ok("get", name, dest, "--transport", "tcp")
        assert dest.read_bytes() == path.read_bytes()
    log = agent.log()
    assert str(other_content) in log, "the reason is logged"


def test_a_source_that_changes_meanwhile_is_withdrawn(cluster: Cluster) -> None:
    agent, other = cluster.agents("writer", "reader")
    path, name = registered(agent, "volatile")
    with path.open("r+b") as file:
        file.write(b"changed")
    eventually(lambda: agent.holders(name) == {}, "it is withdrawn")
    assert other.fails(3, "get", name, cluster.path("volatile-copy"))["type"] == "ObjectNotFound"
    assert str(path) in agent.log()
    agent.ok("register", path, "--name", name)
    other.ok("get", name, cluster.path("volatile-copy"))
    assert cluster.path("volatile-copy").read_bytes() == path.read_bytes()


def test_one_of_several_copies_changes(cluster: Cluster) -> None:
    agent, other = cluster.agents("keeper", "other")
    path, name = registered(agent, "spare")
    copy = cluster.path("spare-copy")
    agent.ok("get", name, copy)
    with path.open("ab") as file:
        file.write(b"changed")
    eventually(lambda: f"withdrew {name}" in agent.log(), "the changed copy is given up")
    assert set(other.holders(name)) == {agent.name}, "the other copy is not"
    other.ok("get", name, cluster.path("spare-other"), "--transport", "tcp")
    assert cluster.path("spare-other").read_bytes() == copy.read_bytes()


def test_embedded_etcd_outlives_a_killed_agent_is_adopted_and_stopped(alone: Cluster) -> None:
    agent = alone.agent("founder")
    _, name = registered(agent, "founded")
    url, etcd = agent.status()["metadata"], agent.etcd_pid
    assert etcd is not None
    agent.kill()
    assert is_alive(etcd)
    done = agent.run("node", "status")
    assert done.status == 3
    assert str(etcd) in done.err, "the left etcd is pointed out"
    agent.start()
    assert agent.status()["metadata"] == url
    assert agent.etcd_pid == etcd, "adopted, not replaced"
    assert set(agent.holders(name)) == {agent.name}
    agent.stop()
    assert not is_alive(etcd), "a clean stop ends it"
    assert alone.processes() == []


def test_stop_ends_the_etcd_that_a_dead_agent_left(alone: Cluster) -> None:
    agent = alone.agent("orphaner")
    etcd = agent.etcd_pid
    assert etcd is not None
    agent.kill()
    stopped = agent.stop()
    assert (stopped["pid"], stopped["etcd_pid"]) == (None, etcd)
    assert not is_alive(etcd)
    assert agent.stop()["pid"] is None


def test_a_killed_embedded_etcd_comes_back_and_objects_are_listed_again(alone: Cluster) -> None:
    agent = alone.agent("keeper")
    second = alone.agent("second", metadata=agent.status()["metadata"])
    _, name = registered(agent, "kept")
    second.ok("get", name, alone.path("kept-copy"))
    etcd = agent.etcd_pid
    assert etcd is not None
    os.kill(etcd, signal.SIGKILL)
    eventually(lambda: agent.etcd_pid != etcd and agent.run("list").status == 0, "another etcd answers")
    eventually(lambda: set(agent.holders(name)) == {agent.name, second.name}, "both say again what they hold")
    assert agent.status()["metadata"] == second.status()["metadata"], "at the same address"


def test_an_etcd_that_comes_back_empty_is_filled_again(cluster: Cluster, etcd: Etcd) -> None:
    agents = cluster.agents("one", "two")
    _, name = registered(agents[0], "refilled")
    agents[1].ok("get", name, cluster.path("refilled-copy"))
    etcd.kill()
    done = agents[0].run("list", "--json")
    assert done.status == 6, done
    assert done.error["type"] == "MetadataUnavailable"
    assert "config show --origin" in done.error["advice"]
    eventually(lambda: not agents[0].status()["metadata_ok"], "the agent noticed")
    etcd.wipe()
    etcd.start()
    names = {a.name for a in agents}
    eventually(lambda: agents[0].run("list").status == 0 and set(agents[1].holders(name)) == names, "published again")
    assert agents[0].status()["metadata_ok"]


def test_logs_shows_the_background_agents_log(shared: Cluster, source: Agent) -> None:
    done = source.run("node", "logs", "-n", 1000)
    assert done.status == 0
    assert f"node {source.name} serves in" in done.out
    following = source.begin("node", "logs", "-n", 1, "-f")
    assert following.process.stdout is not None
    assert following.process.stdout.readline(), "what is there; from here on it follows"
    _, name = registered(source, "logged")
    shared.path("logged").unlink()
    line = _line_of(following, name)
    assert "withdrawn" in line
    following.send(signal.SIGINT)
    assert following.wait().status == 130


def _line_of(running: Running, text: str) -> str:
    assert running.process.stdout is not None
    for line in running.process.stdout:
        if text in line:
            return str(line)
    raise AssertionError(f"the log ended without {text}")
