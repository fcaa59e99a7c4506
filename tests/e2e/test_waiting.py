"""Gets that wait: for what is not there yet, for sources that come back, and no longer than they may."""

from __future__ import annotations

import signal
import time

from tests.e2e.cluster import Agent, Cluster, eventually, journalled, make_file, resume, same

MIB = 1 << 20


def test_an_object_that_is_not_there_yet(source: Agent, getter: Agent, shared: Cluster) -> None:
    assert getter.fails(3, "get", "waited/for", shared.path("not-waited"))["type"] == "ObjectNotFound"
    dest = shared.path("waited")
    waiting = getter.begin("get", "waited/for", dest, "--wait", "--transport", "tcp", "--json")
    assert waiting.process.stderr is not None
    assert waiting.process.stderr.readline() == "no object is named 'waited/for'; trying again\n"
    path = make_file(shared.path("late"), 2 * MIB)
    source.ok("register", path, "--name", "waited/for")
    done = waiting.wait()
    assert done.status == 0, done
    assert done.json["bytes_pulled"] == 2 * MIB
    assert same(path, dest)


def test_waiting_has_an_end(getter: Agent, shared: Cluster) -> None:
    began = time.monotonic()
    assert getter.fails(3, "get", "never", shared.path("never"), "--wait=2s")["type"] == "ObjectNotFound"
    assert time.monotonic() - began >= 2
    assert getter.fails(5, "get", "never", shared.path("never"), "--wait", "--timeout=2s")["type"] == "GetTimedOut"


def test_ctrl_c_while_it_waits(getter: Agent, shared: Cluster) -> None:
    waiting = getter.begin("get", "never", shared.path("never"), "--wait")
    assert waiting.process.stderr is not None
    assert "trying again" in waiting.process.stderr.readline()
    waiting.send(signal.SIGINT)
    done = waiting.wait()
    assert done.status == 130, done
    assert "run the same command again" in done.err


def test_an_agent_killed_while_a_get_waits(cluster: Cluster) -> None:
    agent = cluster.agent("getter")
    waiting = agent.begin("get", "never", cluster.path("never"), "--wait", "--json")
    assert waiting.process.stderr is not None
    assert "trying again" in waiting.process.stderr.readline()
    agent.kill()
    done = waiting.wait()
    assert done.status == 5, done
    assert done.error["type"] == "AgentGone"


def test_a_timeout_keeps_what_came(source: Agent, getter: Agent, shared: Cluster) -> None:
    path = make_file(shared.path("slow"), 48 * MIB, seed=60)
    source.ok("register", path, "--name", "slow", "--chunk-size", "1MiB")
    source.send_at_most(2 * MIB)  # all of it takes 24 s
    dest = shared.path("slow-copy")
    try:
        for seconds in (4, 8, 16):  # on a slow day nothing comes within a few seconds
            error = getter.fails(5, "get", "slow", dest, "--timeout", f"{seconds}s", "--transport", "tcp")
            assert error["type"] == "GetTimedOut"
            assert not dest.exists()
            if journalled(dest):
                break
    finally:
        resume(source)
    assert journalled(dest), "something came"
    assert getter.ok("get", "slow", dest, "--transport", "tcp")["bytes_reused"] >= MIB
    assert same(path, dest)


def test_a_source_that_comes_back(cluster: Cluster) -> None:
    source, getter = cluster.agents("source", "getter")
    path = make_file(cluster.path("data"), 32 * MIB, seed=61)
    source.ok("register", path, "--name", "data", "--chunk-size", "1MiB")
    source.send_at_most(2 * MIB)
    dest = cluster.path("copy")
    waiting = getter.begin("get", "data", dest, "--wait=10m", "--transport", "tcp", "--json")
    eventually(lambda: journalled(dest) >= 2, "some of it has come")
    source.kill()
    eventually(lambda: "; trying again" in getter.log() or not getter.status()["gets"], "its get has ended")
    source.start()
    done = waiting.wait(timeout=200)
    assert done.status == 0, done
    assert same(path, dest)
    assert done.json["bytes_reused"] >= 2 * MIB


def test_several_names_and_patterns(source: Agent, getter: Agent, shared: Cluster) -> None:
    names = ["several/a", "several/b", "several/deep/c"]
    for seed, name in enumerate(names):
        path = make_file(shared.path(f"several-{seed}"), MIB, seed=70 + seed)
        source.ok("register", path, "--name", name)
    into = shared.path("into")
    into.mkdir()
    done = getter.ok("get", "several/", f"{into}/", "--transport", "tcp")
    assert [one["name"] for one in done["objects"]] == names
    assert sorted(path.name for path in into.iterdir()) == ["a", "b", "c"]
    assert len(getter.ok("info", "several/*")["objects"]) == 2
    assert [one["ok"] for one in getter.ok("verify", "several/", into / "a")["objects"]] == [True] * 4
    assert [one["name"] for one in getter.ok("unregister", "several/**")["objects"]] == names
    assert getter.fails(3, "unregister", "several/**")["type"] == "NotHeld"
    assert len(source.ok("unregister", *names)["objects"]) == 3
