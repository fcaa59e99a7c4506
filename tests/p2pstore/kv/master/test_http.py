"""The admin surface, over a master that is a table of answers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio

from engine.net import addresses, sockets
from p2pstore.kv.master import http
from p2pstore.kv.master.forms import KeyShown
from p2pstore.kv.master.http import AdminServer
from p2pstore.kv.master.http_tenants import SLICE
from p2pstore.kv.master.metrics import OPENMETRICS, TEXT
from p2pstore.kv.pool.entries import TenantUse
from p2pstore.settings.master_keys import networks
from tests.p2pstore.kv.master.table import KEY, STRANGE, Table


class Asker:
    """Asks one server."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def __call__(self, path: str, method: str = "GET", **options: Any) -> tuple[int, str, str]:
        async with self._session.request(method, self.url + path, **options) as answer:
            return answer.status, answer.headers.get("Content-Type", ""), (await answer.read()).decode()

    async def json(self, path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
        status, kind, text = await self(path, method, **options)
        assert kind.startswith("application/json")
        return status, json.loads(text)


@pytest.fixture
def table() -> Table:
    return Table()


@pytest_asyncio.fixture
async def ask(table: Table) -> AsyncIterator[Asker]:
    server = AdminServer(table)
    listener = sockets.listen("127.0.0.1", 0)
    host, port = listener.getsockname()
    await server.start(listener)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
        yield Asker(f"http://{addresses.join(host, port)}", session)
    await server.close()


async def test_whether_it_serves(ask: Asker, table: Table) -> None:
    assert await ask.json("/health") == (
        200,
        {
            "status": "ok",
            "role": "leader",
            "ha_state": "serving",
            "service_ready": True,
            "leader_address": None,
            "view_version": None,
        },
    )
    assert (await ask("/role"))[2] == "leader"
    assert (await ask("/ha_status"))[2] == "serving"
    assert (await ask.json("/leader"))[1]["present"] is False
    assert (await ask.json("/kv_events/status"))[1]["enabled"] is False
    table.is_ready = False
    status, answer = await ask.json("/health")
    assert (status, answer["role"], answer["service_ready"]) == (200, "standby", False)
    for path in ("/query_key?key=x", "/get_all_keys", "/get_all_segments", "/api/v1/why"):
        status, answer = await ask.json(path)
        assert status == 503
        assert answer["error_message"] == "service plane is not active"
    assert (await ask("/metrics"))[0] == 200


async def test_an_unknown_path_is_not_found(ask: Asker) -> None:
    assert (await ask("/nothing"))[0] == 404


async def test_where_a_value_lies(ask: Asker) -> None:
    data = {
        "size_": 4096,
        "buffer_address_": 0x7F0000000000,
        "protocol_": "tcp",
        "transport_endpoint_": "10.0.0.2:12001",
    }
    assert await ask.json("/query_key", params={"key": KEY}) == (200, {"success": True, "data": [data]})
    missing = {"success": False, "error_code": -704, "error_message": "OBJECT_NOT_FOUND"}
    assert await ask.json("/query_key", params={"key": "nothing"}) == (404, missing)
    assert await ask.json("/query_key?key=only-red") == (404, missing)
    assert (await ask.json("/query_key?key=only-red&tenant_id=red"))[0] == 200
    assert (await ask("/query_key"))[0] == 404


async def test_a_key_is_found_however_it_is_written(ask: Asker, table: Table) -> None:
    table.held["default", "a+b"] = table.held["default", KEY]
    table.held["default", "c d"] = table.held["default", KEY]
    for text in ("a+b", "a%2Bb", "c+d", "c%20d", KEY, KEY.replace("@", "%40")):
        status, _, _ = await ask(f"/query_key?key={text}")
        assert status == 200, text


async def test_where_several_values_lie(ask: Asker) -> None:
    status, answer = await ask.json("/batch_query_keys", params={"keys": f"{KEY},nothing"})
    assert status == 200
    assert answer["success"] is True
    assert answer["data"]["nothing"] == {
        "ok": False,
        "error": "OBJECT_NOT_FOUND",
        "values": None,
        "disk_values": None,
        "local_disk_values": None,
        "nof_values": None,
    }
    assert answer["data"][KEY]["ok"] is True
    assert answer["data"][KEY]["values"][0]["transport_endpoint_"] == "10.0.0.2:12001"
    assert (await ask.json("/batch_query_keys"))[0] == 400


async def test_every_kind_of_place_is_told(ask: Asker, table: Table) -> None:
    table.held["default", "mixed"] = table.held["default", STRANGE]
    _, answer = await ask.json("/batch_query_keys?keys=mixed")
    found = answer["data"]["mixed"]
    assert found["disk_values"] == [{"file_path": "/mnt/x", "object_size": 4096}]
    assert found["local_disk_values"] == [{"client_id": "1-2", "object_size": 4096, "transport_endpoint": "10.0.0.2:1"}]
    assert found["nof_values"][0]["protocol_"] == "nvmeof"
    _, one = await ask.json("/api/v1/keys/info?key=mixed")
    assert [each["kind"] for each in one["replicas"]] == ["memory", "nof", "disk", "localdisk"]


async def test_all_keys_and_segments(ask: Asker) -> None:
    status, kind, text = await ask("/get_all_keys")
    assert (status, kind) == (200, TEXT)
    assert text == f"{KEY}\n{STRANGE}\nonly-red\n"
    assert (await ask("/get_all_segments"))[2] == "host:1\ngone:1\n"


async def test_more_keys_than_one_slice(ask: Asker, table: Table) -> None:
    table.held = {("default", f"key-{number}"): table.held["default", KEY] for number in range(2500)}
    _, _, text = await ask("/get_all_keys")
    assert text.splitlines() == [f"key-{number}" for number in range(2500)]
    _, _, text = await ask("/api/v1/keys?prefix=key-1&limit=1050")
    assert [json.loads(line)["key"] for line in text.splitlines()] == [
        key for number in range(2500) if (key := f"key-{number}").startswith("key-1")
    ][:1050]


async def test_a_segment(ask: Asker) -> None:
    assert (await ask("/query_segment?segment=host:1"))[::2] == (
        200,
        f"host:1\nUsed(bytes): {1 << 29}\nCapacity(bytes) : {2 << 30}\n",
    )
    assert (await ask("/query_segment?segment=none"))[0] == 500
    _, answer = await ask.json("/get_segments_detail")
    assert answer["total_segments"] == 3
    assert answer["segments"][0] == {
        "segment_name": "host:1",
        "segment_id": "1-2",
        "client_id": "1-2",
        "base_address": "0x1000",
        "size_bytes": 1 << 30,
        "size_human": "1 GiB",
        "te_endpoint": "10.0.0.2:1",
        "protocol": "tcp",
        "status": "OK",
        "allocator_used_bytes": 1 << 29,
        "allocator_capacity_bytes": 1 << 30,
        "allocator_usage_percent": 50.0,
    }
    assert (await ask.json("/api/v1/segments/status?segment=host:1"))[1]["status_name"] == "OK"
    assert (await ask.json("/api/v1/segments/status?segment=gone:1"))[1]["status_name"] == "UNMOUNTING"
    assert (await ask.json("/api/v1/segments/status?segment=none"))[0] == 404
    assert (await ask.json("/api/v1/segments/status"))[0] == 400


async def test_our_list_of_keys(ask: Asker) -> None:
    _, _, text = await ask("/api/v1/keys")
    assert [json.loads(line)["key"] for line in text.splitlines()] == [KEY, STRANGE, "only-red"]
    _, _, text = await ask("/api/v1/keys?tenant_id=red")
    assert json.loads(text) == {"key": "only-red", "tenant": "red", "size": 4096, "replicas": 1, "complete": False}
    for limit in ("x", "-1", "9" * 5000):
        assert (await ask(f"/api/v1/keys?limit={limit}"))[0] == 400


async def test_removing(ask: Asker, table: Table) -> None:
    assert (await ask.json("/api/v1/keys?key=nothing", "DELETE"))[0] == 404
    status, answer = await ask.json("/api/v1/keys", "DELETE", params={"key": KEY})
    assert (status, answer["error_message"]) == (409, "OBJECT_HAS_LEASE")
    assert table.removed == []
    assert (await ask.json("/api/v1/keys", "DELETE", params={"key": KEY, "force": "1"}))[0] == 200
    assert (await ask.json("/api/v1/keys", "DELETE"))[0] == 400
    assert await ask.json("/api/v1/remove_all?force=true&tenant_id=red", "POST") == (
        200,
        {"success": True, "removed_count": 3},
    )
    assert table.removed == [(KEY, True), ("all of red", True)]
    assert (await ask("/api/v1/remove_all"))[0] == 405


@pytest.mark.parametrize(("path", "method"), [("/api/v1/remove_all", "POST"), (f"/api/v1/keys?key={KEY}", "DELETE")])
async def test_no_page_of_the_web_removes_anything(ask: Asker, table: Table, path: str, method: str) -> None:
    """A browser on this host would send a form's POST to loopback for any page that asks it to."""
    for headers in ({"Origin": "https://example.com"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "example.com:9003"}):
        status, _, _ = await ask(path, method, headers=headers)
        assert status == 403
    assert table.removed == []


@pytest.mark.parametrize("path", ["/get_all_keys", "/get_all_segments", "/api/v1/status", "/metrics"])
async def test_no_page_of_the_web_learns_names_from_loopback(ask: Asker, path: str) -> None:
    """Its own host's name may have come to mean loopback."""
    assert (await ask(path, headers={"Host": "example.com:9003"}))[0] == 403
    for host in ("127.0.0.1:9003", "localhost:9003", socket.gethostname()):
        assert (await ask(path, headers={"Host": host}))[0] == 200


async def test_why(ask: Asker) -> None:
    _, answer = await ask.json("/api/v1/why?key=nothing")
    assert [finding["cause"] for finding in answer["findings"]] == ["never-put"]
    _, answer = await ask.json("/api/v1/why", params={"key": KEY})
    assert [finding["cause"] for finding in answer["findings"]] == ["readable", "leased"]
    _, answer = await ask.json("/api/v1/why")
    assert [finding["cause"] for finding in answer["findings"]] == ["unknown-calls", "failed-200"]
    _, answer = await ask.json("/api/v1/why?client=10.0.0.9")
    assert [finding["cause"] for finding in answer["findings"]] == ["no-call"]


async def test_the_status(ask: Asker) -> None:
    _, answer = await ask.json("/api/v1/status")
    assert (answer["version"], answer["ready"], answer["numbers"]["key_count"]) == ("1", True, 3)
    assert answer["clients"][0]["failures"] == {"-200": 2}
    assert answer["segments"][0]["silent"] == 0.5
    assert answer["unknown_calls"] == {"FlyToTheMoon": 1}


async def test_metrics_come_in_the_format_that_is_asked_for(ask: Asker) -> None:
    _, kind, text = await ask("/metrics")
    assert kind == TEXT
    assert "\nmaster_key_count 3\n" in text
    _, kind, text = await ask("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,*/*;q=0.1"})
    assert kind == OPENMETRICS
    assert text.endswith("# EOF\n")
    assert "Keys: 3" in (await ask("/metrics/summary"))[2]


async def test_garbage_on_its_port_does_no_harm(ask: Asker) -> None:
    host, port = addresses.parse(ask.url.removeprefix("http://"))
    for garbage in (b"\x15\0\0\0" * 100, b"GET /" + b"x" * 100_000, b"\r\n" * 50):
        _, writer = await asyncio.open_connection(host, port)
        writer.write(garbage)
        await writer.drain()
        writer.close()
    assert (await ask("/role"))[2] == "leader"


async def test_who_is_not_allowed_learns_nothing(table: Table) -> None:
    for allow, expected in (("10.0.0.0/8", 403), ("127.0.0.0/8,10.0.0.0/8", 200)):
        server = AdminServer(table, networks(allow))
        listener = sockets.listen("127.0.0.1", 0)
        url = f"http://{addresses.join(*listener.getsockname())}"
        await server.start(listener)
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{url}/get_all_keys") as answer:
                assert answer.status == expected
                assert (KEY in await answer.text()) is (expected == 200)
        finally:
            await server.close()


async def test_others_have_their_turn_within_a_long_list(
    ask: Asker, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "SLICE", 1)
    table.held = {("default", f"key-{number}"): table.held["default", KEY] for number in range(50)}
    turns = 0
    seen: set[int] = set()

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def shown(tenant: str, key: str) -> KeyShown:
        seen.add(turns)
        return KeyShown(key, tenant, 1, 1, complete=True)

    monkeypatch.setattr(table, "shown", shown)
    task = asyncio.create_task(others())
    await ask("/api/v1/keys")
    task.cancel()
    assert len(seen) == 50


async def test_segments_are_drained_as_upstream_is_asked_to(ask: Asker, table: Table) -> None:
    async def post(path: str, body: bytes = b"") -> tuple[int, Any]:
        return await ask.json(path, "POST", data=body)

    body = json.dumps({"segments": ["host:1"], "target_segments": ["b"], "max_concurrency": 2}).encode()
    assert await post("/api/v1/drain_jobs", body) == (
        200,
        {"success": True, "job_id": "7-9", "status": "CREATED", "error_code": 0, "error_message": ""},
    )
    assert (await post("/api/v1/drain_jobs", b'{"segments": ["host:1"]}'))[0] == 200
    assert table.drained == [(["host:1"], ["b"], 2), (["host:1"], [], 4)]
    refused = {"success": False, "error_code": -101, "error_message": "SEGMENT_NOT_FOUND"}
    assert await post("/api/v1/drain_jobs", b'{"segments": ["none"]}') == (404, refused)
    for wrong in (
        b"",
        b"[]",
        b"{",
        b'{"segments": "a"}',
        b'{"segments": [1]}',
        b'{"max_concurrency": "4"}',
        b"[" * 9999,
    ):
        status, answer = await post("/api/v1/drain_jobs", wrong)
        assert (status, answer["error_code"]) == (400, -600), wrong
        assert str(answer["error_message"]).startswith("Invalid JSON body: ")
    _, job = await ask.json("/api/v1/drain_jobs/query?job_id=7-9")
    assert (job["status_name"], job["type_name"], job["migrated_bytes"]) == ("RUNNING", "DRAIN", 5)
    status, answer = await post("/api/v1/drain_jobs/cancel?job_id=7-9")
    assert (status, answer["error_message"]) == (409, "UNAVAILABLE_IN_CURRENT_STATUS")
    assert (await post("/api/v1/drain_jobs/cancel?job_id=7-8"))[0] == 404
    for wrong_id in ("", "7", "7-", "7-9-1", "-7-9", "7-99999999999999999999", "x-y", "\u0667-9"):
        status, answer = await post(f"/api/v1/drain_jobs/cancel?job_id={quote(wrong_id)}")
        assert (status, answer["error_message"]) == (400, "Missing or invalid job_id"), wrong_id


async def test_what_tenants_take_and_may_take(ask: Asker, table: Table) -> None:
    status, answer = await ask.json("/api/v1/tenant_quotas")
    assert (status, answer["error_message"]) == (409, "UNAVAILABLE_IN_CURRENT_MODE"), "tenants are one"
    table.uses = [TenantUse("a", 100, 60), TenantUse("b", None, 7), TenantUse("huge", 5000, 0)], 1000
    status, answer = await ask.json("/api/v1/tenant_quotas")
    assert status == 200
    assert [each["effective_quota_bytes"] for each in answer["data"]] == [100, 1000, 1000]
    status, answer = await ask.json("/api/v1/tenant_quotas?tenant_id=a")
    assert answer["data"] == {
        "tenant_id": "a",
        "requested_quota_bytes": 100,
        "effective_quota_bytes": 100,
        "charged_bytes": 60,
        "admission_closed": False,
        "over_quota": False,
        "has_explicit_policy": True,
    }
    status, answer = await ask.json("/api/v1/tenant_quotas?tenant_id=c")
    assert (status, answer["error_code"]) == (404, -704)


@pytest.mark.parametrize("count", [0, 1, SLICE, SLICE + 1, 3 * SLICE])
async def test_many_tenants_are_told_of_piece_by_piece(ask: Asker, table: Table, count: int) -> None:
    table.uses = [TenantUse(f"t\udcff{number}", None, number) for number in range(count)], 1000
    status, answer = await ask.json("/api/v1/tenant_quotas")
    assert (status, answer["success"]) == (200, True)
    assert [each["charged_bytes"] for each in answer["data"]] == list(range(count))


async def test_a_tenants_quota_is_changed_while_it_runs(ask: Asker, table: Table) -> None:
    path = "/api/v1/tenant_quotas?tenant_id="
    status, answer = await ask.json(f"{path}a", "PUT", data=b'{"requested_quota_bytes": 200}')
    assert (status, answer["error_message"]) == (409, "UNAVAILABLE_IN_CURRENT_MODE"), "tenants are one"
    table.uses = [TenantUse("a", 100, 150)], 1000
    assert (await ask.json(f"{path}a"))[1]["data"]["over_quota"] is True
    status, answer = await ask.json(f"{path}a", "PUT", data=b'{"requested_quota_bytes": 200}')
    assert (status, answer["success"], answer["data"]["requested_quota_bytes"]) == (200, True, 200)
    assert answer["data"]["over_quota"] is False
    status, answer = await ask.json(f"{path}a", "DELETE")
    assert (status, answer["data"]["has_explicit_policy"]) == (200, False)
    assert (await ask.json(f"{path}b", "DELETE"))[0] == 404
    for wrong in (b"", b"[]", b"{", b'{"requested_quota_bytes": "1"}', b'{"requested_quota_bytes": true}', b"[" * 9999):
        status, answer = await ask.json(f"{path}a", "PUT", data=wrong)
        assert (status, answer["error_code"]) == (400, -600), wrong
        assert answer["error_message"].startswith("Invalid JSON body: ")
    for size in (0, -1, 1 << 63):
        status, answer = await ask.json(f"{path}a", "PUT", json={"requested_quota_bytes": size})
        assert (status, answer["error_message"]) == (400, "Tenant quota must be in [1, 2^63 - 1] bytes")
    for name in ("", "_a", "a%0Ab", "%7F"):
        for method in ("PUT", "DELETE"):
            status, answer = await ask.json(path + name, method, json={"requested_quota_bytes": 1})
            assert (status, answer["error_message"]) == (400, "Missing or invalid tenant_id")
    status, _, _ = await ask(f"{path}a", "PUT", json={"requested_quota_bytes": 1}, headers={"Origin": "http://x"})
    assert status == 403, "no page of the web changes anything"
