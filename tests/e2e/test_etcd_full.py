"""A cluster whose etcd has reached its quota: what works goes on, what does not says why, and it heals."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request

import pytest

from tests.e2e.cluster import Cluster, Etcd, eventually, make_file, same
from tests.p2pstore.metadata.servers import need

MIB = 1 << 20
QUOTA = 3_000_000
FILLER = base64.b64encode(b"x" * 200_000).decode()


def key(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def post(etcd: Etcd, call: str, body: dict[str, object]) -> dict[str, object]:
    request = urllib.request.Request(f"http://{etcd.endpoint}/v3/{call}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.loads(answer.read())
        return found


def fill(etcd: Etcd) -> None:
    for number in range(200):
        try:
            post(etcd, "kv/put", {"key": key(f"filler/{number:03}"), "value": FILLER})
        except urllib.error.HTTPError:
            return
    raise AssertionError("it has no quota")


def make_room(etcd: Etcd) -> None:
    gone = post(etcd, "kv/deleterange", {"key": key("filler/"), "range_end": key("filler0")})
    header = gone["header"]
    assert isinstance(header, dict)
    post(etcd, "kv/compaction", {"revision": header["revision"], "physical": True})
    post(etcd, "maintenance/defragment", {})
    alarms = post(etcd, "maintenance/alarm", {"action": "GET"})["alarms"]
    assert isinstance(alarms, list)
    for alarm in alarms:
        post(etcd, "maintenance/alarm", {"action": "DEACTIVATE", **alarm})


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("release", ["3.4", "3.5"])
def test_an_etcd_without_space(alone: Cluster, release: str) -> None:
    etcd = alone.etcd("etcd", need(release), f"--quota-backend-bytes={QUOTA}")
    first, second, late = (alone.agent(name, start=name != "late") for name in ("first", "second", "late"))
    paths = [make_file(alone.path(f"f{number}"), MIB, seed=number) for number in range(3)]
    for number in (0, 1):
        first.ok("register", paths[number], "--name", f"f{number}")
    fill(etcd)

    error = first.fails(8, "register", paths[2], "--name", "f2")
    assert error["type"] == "MetadataFull"
    assert "has no space left" in error["message"]
    assert "does not answer" not in error["message"]
    assert {o["name"] for o in second.ok("list")["objects"]} == {"f0", "f1"}
    assert second.ok("info", "f0")["replicas"]

    late.start()  # it can have no lease, and gets all the same
    for agent in (second, late):
        dest = alone.path(f"copy-{agent.name}")
        agent.ok("get", "f0", dest, "--transport", "tcp")
        assert same(paths[0], dest)
    status = late.status()
    assert not status["metadata_ok"]
    assert "has no space left" in status["metadata_fault"]["message"]
    examined = late.run("doctor", "--json")
    assert examined.status == 8, examined
    checks = {check["subject"]: check for check in examined.json["checks"]}
    assert checks["alarms of etcd"]["verdict"] == "failed"
    assert "has no space left" in checks["membership"]["detail"]

    done = first.run("unregister", "f1")
    assert done.status == 0, done
    assert "other nodes still serve it" not in done.err
    assert [o["name"] for o in second.ok("list")["objects"]] == ["f0"], "what was withdrawn is withdrawn"
    before = len(late.log().splitlines())
    time.sleep(5)
    assert len(late.log().splitlines()) - before <= 1, "a line a second"

    make_room(etcd)
    eventually(lambda: late.status()["metadata_ok"] and second.status()["metadata_ok"], "they are known again")
    eventually(lambda: set(first.holders("f0")) == {"first", "second", "late"}, "what they got is known")
    assert first.names() == ["f0"]
    first.ok("register", paths[2], "--name", "f2")
