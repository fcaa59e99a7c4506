"""Gets in the background, with agents as they are: they outlive their command, and what they brought their agent."""

from __future__ import annotations

import signal

import pytest

from p2pstore.agent.client import AgentClient
from p2pstore.agent.home import Home
from p2pstore.errors import JobCut
from tests.e2e.cluster import HALTED_RATE, Agent, Cluster, eventually, journalled, make_file, resume, same

MIB = 1 << 20


def test_a_job_from_its_beginning_to_its_end(source: Agent, getter: Agent, shared: Cluster) -> None:
    path = make_file(shared.path("job"), 2 * MIB, seed=81)
    source.ok("register", path, "--name", "job/whole")
    job = getter.ok("get", "job/whole", shared.path("job-copy"), "--background")
    result = getter.ok("jobs", "wait", job["id"])
    assert (result["name"], result["size"]) == ("job/whole", 2 * MIB)
    assert same(path, shared.path("job-copy"))
    shown = getter.ok("jobs", "show", job["id"])
    assert (shown["state"], shown["exit_code"], shown["result"]) == ("done", 0, result)
    before = getter.ok("jobs")["jobs"]
    assert getter.fails(3, "get", "job/none", shared.path("job-none"), "--background")["type"] == "ObjectNotFound"
    assert getter.ok("jobs")["jobs"] == before
    failing = getter.ok("get", "job/none", shared.path("job-none"), "--background", "--retries", "1")
    assert getter.fails(3, "jobs", "wait", failing["id"])["type"] == "ObjectNotFound"
    assert getter.ok("jobs", "show", failing["id"])["state"] == "failed"
    assert {each["id"] for each in getter.ok("jobs")["jobs"]} >= {job["id"], failing["id"]}


def test_one_that_waits_is_seen_and_cancelled(getter: Agent, shared: Cluster) -> None:
    dest = shared.path("job-never")
    job = getter.ok("get", "job/never", dest, "--background", "--wait")
    eventually(lambda: getter.ok("jobs", "show", job["id"])["notes"], "it says that it waits")
    waiting = getter.begin("jobs", "wait", job["id"], "--json")
    assert waiting.process.stderr is not None
    assert "trying again" in waiting.process.stderr.readline(), "so the command waits, too"
    assert getter.fails(7, "get", "job/never", dest, "--background")["type"] == "DestinationBusy"
    assert [each["id"] for each in getter.status()["jobs"]] == [job["id"]]
    waiting.send(signal.SIGINT)
    assert waiting.wait().status == 130
    assert getter.ok("jobs", "show", job["id"])["state"] == "running"
    assert getter.ok("jobs", "cancel", job["id"])["state"] == "cancelled"
    assert getter.fails(130, "jobs", "wait", job["id"])["type"] == "JobCancelled"
    assert getter.status()["jobs"] == []


def test_what_an_agents_end_leaves(cluster: Cluster) -> None:
    source, getter = cluster.agents("source", "getter")
    path = make_file(cluster.path("data"), 48 * MIB, seed=82)
    source.ok("register", path, "--name", "data", "--chunk-size", "1MiB")
    copies = [cluster.path("killed"), cluster.path("stopped")]
    for copy, end in zip(copies, (getter.kill, getter.stop), strict=True):
        source.send_at_most(2 * MIB)
        job = getter.ok("get", "data", copy, "--background", "--transport", "tcp")
        waiting = AgentClient(Home.resolve(getter.home)).wait_for_job(job["id"])
        assert next(waiting)["event"] == "progress"  # so the agent has heard of it; a command says nothing of that
        eventually(lambda copy=copy: journalled(copy) >= 2, "some of it has come")  # type: ignore[misc]
        source.send_at_most(HALTED_RATE)
        ended = end()
        assert ended is None or ended["jobs"] == [job["id"]]
        with pytest.raises(JobCut):
            list(waiting)
        assert not copy.exists()
        getter.start()
        assert getter.ok("jobs", "show", job["id"])["state"] == "cut"
        assert getter.fails(5, "jobs", "wait", job["id"])["type"] == "JobCut"
    resume(source)
    again = [getter.ok("get", "data", copy, "--background", "--transport", "tcp") for copy in copies]
    for job, copy in zip(again, copies, strict=True):
        assert getter.ok("jobs", "wait", job["id"])["bytes_reused"] >= 2 * MIB
        assert same(path, copy)
    assert len({job["id"] for job in getter.ok("jobs")["jobs"]}) == 4
