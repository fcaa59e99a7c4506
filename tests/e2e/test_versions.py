"""Versions of an object as a user names them, with a real etcd: by digest, by tag, and what becomes of both."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.e2e.cluster import Agent, Cluster, Etcd, eventually, make_file, same


@pytest.fixture
def steps(shared: Cluster) -> list[Path]:
    """Three versions of a checkpoint."""
    paths = [shared.path(f"step-{number}") for number in (1, 2, 3)]
    for number, path in enumerate(paths):
        if not path.exists():
            make_file(path, 3 << 20, seed=50 + number)
    return paths


def test_versions_by_tag_and_by_digest(source: Agent, getter: Agent, shared: Cluster, steps: list[Path]) -> None:
    digests = []
    for number, path in enumerate(steps, 1):
        made = source.ok("register", path, "--name", "ck/v", "--force", "--tag", f"step-{number}", "--tag", "latest")
        digests.append(made["manifest"])
        assert made["tags"][1]["before"] == ("" if number == 1 else digests[-2])
    got = shared.path("got")
    for name, path in (
        ("ck/v:step-1", steps[0]),
        (f"ck/v@sha256:{digests[1][:10]}", steps[1]),
        ("ck/v:latest", steps[2]),
        ("ck/v", steps[2]),
    ):
        getter.ok("get", name, got, "--force", "--transport", "tcp")
        assert same(got, path)
    assert getter.ok("get", "ck/v:step-2", f"{shared.path('')}/", "--transport", "tcp")["dest"] == str(shared.path("v"))
    assert [t["tag"] for t in getter.ok("tag", "ck/v")["tags"]] == ["latest", "step-1", "step-2", "step-3"]
    assert getter.ok("tag", "ck/v:step-1", "latest")["tags"] == [{"tag": "latest", "before": digests[2]}]
    assert source.ok("info", "ck/v:latest")["manifest"] == digests[0]
    assert getter.ok("tag", "ck/v:latest", "--remove")["manifest"] == digests[0]
    assert source.fails(3, "get", "ck/v:latest", shared.path("none"))["type"] == "TagNotFound"
    assert source.fails(3, "info", f"ck/v@{'0' * 64}")["type"] == "VersionNotFound"
    assert source.fails(2, "info", "ck/v@sha256:g")["type"] == "BadReference"


def test_a_stale_tag_says_so(source: Agent, getter: Agent, shared: Cluster) -> None:
    steps = [shared.path(f"stale-{number}") for number in (1, 2)]
    for number, path in enumerate(steps):
        make_file(path, 1 << 20, seed=60 + number)
    source.ok("register", steps[0], "--name", "stale", "--tag", "old")
    source.ok("register", steps[1], "--name", "stale", "--force", "--tag", "new")
    done = source.run("unregister", "stale:old")
    assert done.status == 0, done
    assert "the tag stale:old stays, and nobody holds it now" in done.err
    shown = getter.run("tag", "stale")
    assert [line.rstrip().endswith("nobody holds it now") for line in shown.out.splitlines()[1:]] == [False, True]
    error = getter.fails(5, "get", "stale:old", shared.path("nothing"))
    assert (error["type"], error["fields"]["name"]) == ("NoLivePeer", "stale:old")
    source.ok("register", steps[0], "--name", "again")
    getter.ok("get", "stale:old", shared.path("back"), "--transport", "tcp")
    assert same(shared.path("back"), steps[0])


def test_the_history_is_told(source: Agent, getter: Agent, shared: Cluster) -> None:
    path = shared.path("told")
    digests = []
    for number in (1, 2, 3):
        path = make_file(shared.path(f"told-{number}"), 1 << 20, seed=70 + number)
        digests.append(source.ok("register", path, "--name", "told", "--force", "--tag", f"t{number}")["manifest"])
        if number == 1:
            getter.ok("get", "told", shared.path("told-copy"), "--transport", "tcp")
    source.ok("unregister", "told:t1")
    source.ok("unregister", "told:t2")
    rows = [line.split() for line in getter.run("history", "told").out.splitlines()[1:]]
    assert [(row[0], row[-3:]) for row in rows] == [
        (digests[2][:12], ["t3", "newest", source.name]),
        (digests[1][:12], ["t2", "nobody", "now"]),
        (digests[0][:12], ["t1", "superseded", getter.name]),
    ]
    shown = source.ok("list", "told")["objects"]
    assert [o["superseded"] for o in shown] == [1]
    assert [o["manifest"] for o in getter.status()["superseded"] if o["name"] == "told"] == [digests[0]]
    assert f"superseded  {shared.path('told-copy')}" in getter.run("node", "status").out
    assert source.fails(3, "history", "none at all".replace(" ", "-"))["type"] == "ObjectNotFound"


def test_an_update_brings_what_changed_and_replaces_nothing_else(
    source: Agent, getter: Agent, shared: Cluster, steps: list[Path]
) -> None:
    first = source.ok("register", steps[0], "--name", "up", "--tag", "t1")["manifest"]
    got = shared.path("up-copy")
    getter.ok("get", "up", got, "--transport", "tcp")
    source.ok("register", steps[1], "--name", "up", "--force", "--tag", "t2")
    error = getter.fails(7, "get", "up", got)
    assert (error["type"], first[:12] in error["advice"]) == ("DestinationExists", True)
    assert "--update" in error["advice"]
    done = getter.run("get", "up", got, "--update", "--transport", "tcp")
    assert done.status == 0, done
    assert f"in place of {first[:12]}" in done.err
    assert same(got, steps[1])
    assert getter.ok("get", "up:t1", got, "--update", "--dry-run")["replaced"]
    assert getter.fails(2, "get", "up", got, "--update", "--force")["type"] == "UsageError"
    assert getter.fails(2, "get", "up", got, "--update", "--range", "0-9")["type"] == "UsageError"
    with got.open("r+b") as stream:
        stream.write(b"mine")
    assert getter.fails(7, "get", "up:t1", got, "--update")["type"] == "DestinationExists"
    assert got.read_bytes()[:4] == b"mine"


def test_a_watch_outlives_the_metadata_server(cluster: Cluster, etcd: Etcd) -> None:
    source, getter = cluster.agents("source", "getter")
    first, second, third = (make_file(cluster.path(f"w{n}"), 1 << 20, seed=80 + n) for n in (1, 2, 3))
    source.ok("register", first, "--name", "w")
    got = cluster.path("deployed")
    deploy = f'{sys.executable} -m mooncake_cli get "$MOONCAKE_REFERENCE" {got} --update --transport tcp'
    said = cluster.path("said")
    into_a_file = ("sh", "-c", f'exec "$@" 2>{said}', "sh")
    watching = getter.begin("watch", "w", "--initial", "--exec", deploy, prefix=into_a_file)
    try:
        eventually(lambda: got.exists() and same(got, first), "the version that there was is deployed")
        source.ok("register", second, "--name", "w", "--force")
        eventually(lambda: same(got, second), "the next is deployed")
        etcd.kill()
        eventually(lambda: "still watching, and trying again" in said.read_text(), "the loss is told")
        etcd.start()
        eventually(lambda: "the metadata server answers again" in said.read_text(), "and its end")
        eventually(lambda: source.status()["metadata_ok"], "it is back for the other, too")
        source.ok("register", third, "--name", "w", "--force")
        eventually(lambda: same(got, third), "the last is deployed")
        watching.send(signal.SIGINT)
        done = watching.wait()
    finally:
        watching.close()
    assert done.status == 130
    assert len([line for line in done.out.splitlines() if line.startswith("w@sha256:")]) == 3
