"""The admin surface beside the real master's: the same questions, the same answers, and metrics of the same names."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from p2pstore.bench.store.real_master import RealMaster
from p2pstore.kv.errors import KeyNotFound, MasterIsUpstreams
from p2pstore.kv.master.admin_client import AdminClient
from p2pstore.kv.master.metrics import Readings, families, render
from p2pstore.kv.pool.walks import Steps
from tests.cli.store_processes import Process
from tests.interop.store_client import digest, value_of
from tests.interop.test_store import Client
from tests.interop.wheels import wheel
from tests.p2pstore.kv.client.masters import RealMaster as LoggedMaster
from tests.p2pstore.kv.master.table import Served, Table

ROOT = Path(__file__).resolve().parents[2]

KEYS = ["llama-3@tp_rank:0@pcp0@dcp0@pp_rank:0@group:0@" + "ab" * 16, "plain", "with space"]

JOB = sorted(
    (
        *("success", "job_id", "type", "type_name", "status", "status_name", "created_at_ms_epoch"),
        *("last_updated_at_ms_epoch", "segments", "succeeded_units", "failed_units", "blocked_units", "active_units"),
        *("migrated_bytes", "message", "error_code", "error_message"),
    )
)
"""What is told of a job that drains segments."""


@pytest.fixture(scope="module")
def real() -> Iterator[str]:
    """The metrics port of a real master without clients."""
    wheel("newest")
    with RealMaster() as master:
        yield master.metrics


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The metrics ports of ours and a real one, to which the same client of upstream's put the same."""
    installed = wheel("newest")
    directory = tmp_path_factory.mktemp("pool")
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "PYTHONPATH": str(ROOT)}
    with contextlib.ExitStack() as stack:
        theirs = stack.enter_context(RealMaster())
        ours = Process(environment, directory, "master", "--listen", ":0", "--metrics", ":0")
        stack.callback(ours.end)
        for address in (ours.told["address"], theirs.address):
            client = Client(installed, "P2PHANDSHAKE", address, offers=True)
            stack.callback(client.close)
            for key in KEYS:
                assert client("put", key=key, length=70_000) == {"code": 0}
        yield {"ours": ours.told["metrics"], "real": theirs.metrics}


def none(_: str, *, force: bool) -> Steps[int]:
    """Remove all of nothing."""
    yield from ()
    return int(force) * 0


@pytest.fixture(scope="module")
def ours() -> Iterator[str]:
    """The same of ours."""
    table = Table()
    table.held.clear()
    table.segments = list  # type: ignore[method-assign]
    table.remove_all = none  # type: ignore[method-assign]
    served = Served(table)
    yield served.address
    served.close()


def ask(address: str, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str, str]:
    request = urllib.request.Request(f"http://{address}{path}", body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers["Content-Type"] or "", answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"] or "", error.read().decode()


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/health", "GET"),
        ("/role", "GET"),
        ("/ha_status", "GET"),
        ("/leader", "GET"),
        ("/kv_events/status", "GET"),
        ("/get_all_keys", "GET"),
        ("/get_all_segments", "GET"),
        ("/get_segments_detail", "GET"),
        ("/query_key?key=x", "GET"),
        ("/batch_query_keys?keys=a,b", "GET"),
        ("/batch_query_keys?keys=a%2Cb", "GET"),
        ("/batch_query_keys", "GET"),
        ("/query_segment?segment=x", "GET"),
        ("/api/v1/segments/status?segment=x", "GET"),
        ("/api/v1/segments/status", "GET"),
        ("/api/v1/tenant_quotas", "GET"),
        ("/api/v1/tenant_quotas?tenant_id=a", "GET"),
        ("/api/v1/tenant_quotas", "PUT"),
        ("/api/v1/tenant_quotas?tenant_id=a", "PUT"),
        ("/api/v1/tenant_quotas", "DELETE"),
        ("/api/v1/tenant_quotas?tenant_id=a", "DELETE"),
        ("/api/v1/tenant_quotas?tenant_id=_a", "DELETE"),
        ("/api/v1/drain_jobs", "POST"),
        ("/api/v1/drain_jobs/query", "GET"),
        ("/api/v1/drain_jobs/query?job_id=x", "GET"),
        ("/api/v1/drain_jobs/query?job_id=1-2", "GET"),
        ("/api/v1/drain_jobs/cancel?job_id=1-2", "POST"),
        ("/api/v1/remove_all", "POST"),
        ("/api/v1/remove_all?force=true&tenant_id=red", "POST"),
    ],
)
def test_the_same_question_has_the_same_answer(real: str, ours: str, path: str, method: str) -> None:
    theirs, own = ask(real, path, method), ask(ours, path, method)
    assert own[0] == theirs[0]
    assert own[1].partition(";")[0] == theirs[1].partition(";")[0]
    if theirs[1].startswith("application/json"):
        told, expected = json.loads(own[2]), json.loads(theirs[2])
        for each in (told, expected):
            if str(each.get("error_message", "")).startswith("Invalid JSON body"):
                each["error_message"] = "the words are their own"
        assert told == expected
    else:
        assert own[2] == theirs[2]


def test_of_values_that_are_there_the_same_is_told(used: dict[str, str]) -> None:
    def both(path: str) -> list[tuple[int, str]]:
        return [ask(used[side], path)[::2] for side in ("ours", "real")]

    own, theirs = both("/get_all_keys")
    assert sorted(own[1].splitlines()) == sorted(theirs[1].splitlines()) == sorted(KEYS)
    own, theirs = both("/query_key?key=plain")
    assert own[0] == theirs[0] == 200
    (mine,), (its,) = json.loads(own[1])["data"], json.loads(theirs[1])["data"]
    assert (mine.keys(), mine["size_"], mine["protocol_"]) == (its.keys(), its["size_"], its["protocol_"])
    keys = ",".join(KEYS[:2])
    mine, its = (json.loads(text)["data"] for _, text in both(f"/batch_query_keys?keys={keys}"))
    assert mine.keys() == its.keys() == set(KEYS[:2])
    assert [each.keys() for each in mine.values()] == [each.keys() for each in its.values()]
    (mine,), (its,) = (json.loads(text)["segments"] for _, text in both("/get_segments_detail"))
    assert mine.keys() == its.keys()
    same = ("size_bytes", "protocol", "status", "allocator_capacity_bytes")
    assert {key: mine[key] for key in same} == {key: its[key] for key in same}
    own, theirs = (
        ask(used[side], f"/query_segment?segment={each['segment_name']}")
        for side, each in (("ours", mine), ("real", its))
    )
    assert re.sub(r"\d+", "N", own[2]) == re.sub(r"\d+", "N", theirs[2])


def test_a_key_that_is_written_with_escapes_is_found_by_ours_alone(used: dict[str, str]) -> None:
    """Upstream's does not decode this parameter."""
    path = f"/query_key?key={quote(KEYS[0], safe='')}"
    assert ask(used["ours"], path)[0] == 200
    assert ask(used["real"], path)[0] == 404
    assert ask(used["ours"], f"/query_key?key={KEYS[0]}")[0] == ask(used["real"], f"/query_key?key={KEYS[0]}")[0] == 200


def test_why_knows_the_release_of_a_real_client(used: dict[str, str]) -> None:
    client = AdminClient(used["ours"])
    (caller,) = client.status()["clients"]
    assert caller["version"] == "0.3.13"
    assert caller["unknown_calls"] == {}
    assert [finding["cause"] for finding in client.why()] == ["nothing"]
    assert client.why(key=KEYS[0], tenant="default")[0]["cause"] == "readable"
    assert [finding["cause"] for finding in client.why(key=KEYS[0].replace("ab", "cd"), tenant="default")] == [
        "never-put",
        "other-hash",
    ]


def test_a_path_that_is_not_there(real: str, ours: str) -> None:
    assert ask(real, "/nothing")[0] == ask(ours, "/nothing")[0] == 404


def test_every_metric_of_the_real_master_is_one_of_ours(real: str) -> None:
    """But for those of its high availability, which this master does not have."""
    _, _, text = ask(real, "/metrics")
    theirs = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    own = dict(re.findall(r"^# TYPE (\S+) (\S+)$", render(families(Readings())), re.MULTILINE))
    missing = {name: kind for name, kind in theirs.items() if own.get(name) != kind and not name.startswith("ha_")}
    assert len(theirs) > 100
    assert missing == {}


def test_our_commands_understand_the_real_master(real: str) -> None:
    client = AdminClient(real)
    status = client.status()
    assert (status["version"], status["state"], status["segments"]) == (None, "serving", [])
    assert status["numbers"]["key_count"] == 0
    assert list(client.keys("")) == []
    with pytest.raises(KeyNotFound):
        client.key("x", "default")
    with pytest.raises(MasterIsUpstreams):
        client.why()
    assert client.remove_all(None, force=False) == 0


def test_quotas_are_changed_as_the_real_master_changes_them(tmp_path: Path) -> None:
    policies = tmp_path / "quotas.yaml"
    policies.write_text("version: 1\ntenants:\n  - name: a\n    quota: 1000\n")
    theirs = LoggedMaster(
        tmp_path / "log", "--enable_multi_tenants=true", f"--tenant_quota_connector_uri={policies}",
        "--metrics_host=127.0.0.1",
    )  # fmt: skip
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with contextlib.ExitStack() as stack:
        stack.callback(theirs.kill)
        places = ("--listen", ":0", "--metrics", ":0")
        ours = Process(environment, tmp_path, "master", *places, "--tenant-quotas", "a=1000")
        stack.callback(ours.end)
        for query, method, body in [
            ("", "GET", None),
            ("?tenant_id=b", "GET", None),
            ("?tenant_id=b", "PUT", {"requested_quota_bytes": 5}),
            ("?tenant_id=a", "PUT", {"requested_quota_bytes": (1 << 63) - 1}),
            ("", "GET", None),
            ("?tenant_id=b", "PUT", {}),
            ("?tenant_id=b", "PUT", {"requested_quota_bytes": 1 << 63}),
            ("?tenant_id=b", "PUT", []),
            ("?tenant_id=b", "PUT", {"requested_quota_bytes": "x"}),
            ("", "PUT", {"requested_quota_bytes": 5}),
            ("?tenant_id=b", "DELETE", None),
            ("?tenant_id=b", "DELETE", None),
            ("?tenant_id=b", "GET", None),
        ]:
            told = []
            for address in (ours.told["metrics"], f"127.0.0.1:{theirs._metrics}"):
                data = None if body is None else json.dumps(body).encode()
                status, _, text = ask(address, f"/api/v1/tenant_quotas{query}", method, data)
                answer = json.loads(text)
                if str(answer.get("error_message", "")).startswith("Invalid JSON body"):
                    answer["error_message"] = "the words are their own"
                told.append((status, answer))
            assert told[0] == told[1], (query, method, body)


@pytest.mark.parametrize("side", ["ours", "real"])
def test_upstreams_clients_drain_a_segment(side: str, tmp_path: Path) -> None:
    installed = wheel("newest")
    with contextlib.ExitStack() as stack:
        if side == "ours":
            environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
            process = Process(environment, tmp_path, "master", "--listen", ":0", "--metrics", ":0")
            stack.callback(process.end)
            address, admin = process.told["address"], process.told["metrics"]
        else:
            master = stack.enter_context(RealMaster())
            address, admin = master.address, master.metrics
        with contextlib.closing(Client(installed, "P2PHANDSHAKE", address, offers=True)) as first:
            for key in KEYS[:3]:
                assert first("put", key=key, length=70_000) == {"code": 0}
            (segment,) = ask(admin, "/get_all_segments")[2].split()
            second = Client(installed, "P2PHANDSHAKE", address, offers=True)
            stack.callback(second.close)
            status, _, text = ask(admin, "/api/v1/drain_jobs", "POST", json.dumps({"segments": [segment]}).encode())
            begun = json.loads(text)
            assert (status, begun["success"], begun["status"]) == (200, True, "CREATED")
            deadline = time.monotonic() + 120
            while True:
                job = json.loads(ask(admin, f"/api/v1/drain_jobs/query?job_id={begun['job_id']}")[2])
                if job["status_name"] not in {"CREATED", "PLANNING", "RUNNING"}:
                    break
                assert time.monotonic() < deadline, job
                time.sleep(0.2)
            assert sorted(job) == JOB
            assert (job["status_name"], job["succeeded_units"], job["migrated_bytes"]) == ("SUCCEEDED", 3, 210_000)
            assert job["message"] == "Drain job finished successfully"
            state = json.loads(ask(admin, f"/api/v1/segments/status?segment={segment}")[2])
            assert state["status_name"] == "DRAINED"
        for key in KEYS[:3]:
            assert second("get", key=key) == {"sha256": digest(value_of(key, 70_000))}
