"""What the proxy says of itself, and who adds instances and removes them."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as read_text

from tests.p2pstore.serving.proxy.conftest import ADMIN, SECONDS, Running, Start, happens
from tests.p2pstore.serving.proxy.fake_engine import MODEL, say_nothing


async def test_nobody_is_there(engines: Any, proxies: Start) -> None:
    proxy = await proxies([await engines()], [])
    assert (await proxy.get("/health"))[0] == 503
    status, said, headers = await proxy.post()
    assert (status, said["error"]["code"]) == (503, "no_instance")
    assert "no decode instance" in said["error"]["message"]
    assert "prefill" not in said["error"]["message"]
    assert int(headers["Retry-After"]) >= 1


async def test_status_and_health(engines: Any, proxies: Start) -> None:
    prefill, decode = await engines(), await engines()
    proxy = await proxies([prefill], [decode])
    status, said = await proxy.get("/status")
    assert status == 200
    assert {key: said[key] for key in list(said)[:4]} == {
        "prefill_node_count": 1,
        "decode_node_count": 1,
        "prefill_nodes": [prefill.address],
        "decode_nodes": [decode.address],
    }
    assert [one["state"] for one in said["instances"]] == ["up", "up"]
    for path in ("/health", "/healthcheck"):
        assert await proxy.get(path) == (200, {"status": "ok", "prefill_instances": 1, "decode_instances": 1})


async def test_models_are_an_instances(engines: Any, proxies: Start) -> None:
    key = "of-the-engines"
    prefill, decode = await engines(key=key), await engines(key=key)
    proxy = await proxies([prefill], [decode], engine_key=key)
    assert (await proxy.get("/v1/models"))[0] == 401  # our key is not for everybody
    headers = {"Authorization": f"Bearer {key}"}
    async with proxy.session.get(proxy.url + "/v1/models", headers=headers) as answer:
        assert (await answer.json())["data"][0]["id"] == MODEL


async def test_metrics(engines: Any, proxies: Start) -> None:
    prefill, decode = await engines(), await engines()
    proxy = await proxies([prefill], [decode])
    await proxy.post()
    await proxy.stream(max_tokens=7)
    await proxy.post(stream="no")
    async with proxy.session.get(proxy.url + "/metrics") as answer:
        text = await answer.text()
    samples = {
        (sample.name, *sample.labels.values()): sample.value for family in read_text(text) for sample in family.samples
    }
    assert samples["mooncake_proxy_requests_total", "/v1/completions", "200"] == 2
    assert samples["mooncake_proxy_requests_total", "/v1/completions", "400"] == 1
    assert samples["mooncake_proxy_instance_up", decode.address, "decode"] == 1
    assert samples["mooncake_proxy_instance_served_total", prefill.address, "prefill"] == 2
    assert samples["mooncake_proxy_time_to_first_token_seconds_count",] == 2
    assert samples["mooncake_proxy_time_to_first_token_seconds_bucket", "+Inf"] == 2
    assert samples["mooncake_proxy_requests_running",] == 0


async def test_without_the_library_for_metrics(engines: Any, proxies: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = await proxies([await engines()], [await engines()])
    for module in ("p2pstore.serving.proxy.metrics", "p2pstore.metrics.exposition"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.delattr("p2pstore.metrics.exposition", raising=False)
    monkeypatch.delattr("p2pstore.serving.proxy.metrics", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    status, said = await proxy.get("/metrics")
    assert status == 501
    assert "pip install" in said["error"]["message"]


async def test_only_the_key_adds_and_removes(engines: Any, proxies: Start) -> None:
    engine = await engines()
    named = {"type": "decode", "instance": engine.address}
    proxy = await proxies([await engines()], [await engines()])
    for path in ("/instances/add", "/instances/remove"):
        assert (await proxy.admin(path, key=None, **named))[0] == 403
        status, said = await proxy.admin(path, key="wrong-key", **named)
        assert status == 403
        assert "wrong-key" not in json.dumps(said)
    without = await proxies([await engines()], [await engines()], admin_key=None)
    status, said = await without.admin("/instances/add", key="", **named)
    assert status == 500
    assert "ADMIN_API_KEY" in said["error"]["message"]


async def test_no_page_of_the_web_learns_or_changes_the_instances(engines: Any, proxies: Start) -> None:
    """Its own host's name may have come to mean loopback. What models are asked for is for pages, too, as vLLM's is."""
    prefill, decode = await engines(), await engines()
    proxy = await proxies([prefill], [decode])
    rebound, page = {"Host": "example.com:8000"}, {"Origin": "https://example.com"}

    async def ask(method: str, path: str, headers: dict[str, str], body: Any = None) -> int:
        async with proxy.session.request(method, proxy.url + path, headers=headers, json=body) as answer:
            return answer.status

    for path in ("/status", "/metrics"):
        assert await ask("GET", path, rebound) == 403
        assert await ask("GET", path, {}) == 200
    named = {"type": "decode", "instance": decode.address}
    for headers in (rebound, page):
        assert await ask("POST", "/instances/remove", {"X-API-Key": ADMIN, **headers}, named) == 403
        assert await ask("GET", "/v1/models", headers) == 200
        assert await ask("GET", "/health", headers) == 200
    assert (await proxy.get("/status"))[1]["decode_node_count"] == 1


async def test_an_instance_is_added_and_removed(engines: Any, proxies: Start) -> None:
    first, second = await engines(), await engines(tokens=1000, pause=0.02)
    proxy: Running = await proxies([await engines()], [first])
    named = {"type": "decode", "instance": second.address}
    status, said = await proxy.admin("/instances/add", **named)
    assert (status, said) == (200, {"message": f"Added {second.address} to decode_instances."})
    assert set((await proxy.get("/status"))[1]["decode_nodes"]) == {first.address, second.address}
    status, said = await proxy.admin("/instances/add", **named)
    assert status == 400
    assert "there already" in said["error"]["message"]
    long = [asyncio.create_task(proxy.stream(max_tokens=30)) for _ in range(2)]
    await happens(lambda: second.busy == 1)
    status, said = await proxy.admin("/instances/remove", **named)
    assert (status, said["running"]) == (200, 1)
    for _ in range(4):
        assert (await proxy.post())[1]["choices"][0]["text"].startswith(f"{first.port}-")
    states = {one["instance"]: one["state"] for one in (await proxy.get("/status"))[1]["instances"]}
    assert states[second.address] == "draining"
    for stream in long:  # what it had it ends
        events, done = await stream
        assert (len(events), done) == (30, True)
    await happens(lambda: len(list(proxy.server.fleet)) == 2)
    assert (await proxy.admin("/instances/remove", **named))[0] == 404
    assert (await proxy.admin("/instances/add", **named))[0] == 200


async def test_an_instance_that_does_not_drain_is_cut(engines: Any, proxies: Start) -> None:
    stuck, good = await engines(behaviour=say_nothing), await engines()
    proxy = await proxies([await engines()], [stuck], drain_seconds=0.2)
    waits = asyncio.create_task(proxy.stream())
    await happens(lambda: stuck.busy == 1)
    assert (await proxy.admin("/instances/add", type="decode", instance=good.address))[0] == 200
    assert (await proxy.admin("/instances/remove", type="decode", instance=stuck.address))[0] == 200
    assert (await asyncio.wait_for(waits, SECONDS))[1]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"type": "both", "instance": "h:1"}, "'type' is one of"),
        ({"instance": "h:1"}, "'type' is one of"),
        ({"type": "decode"}, "no HOST:PORT"),
        ({"type": "decode", "instance": 7}, "no HOST:PORT"),
        ({"type": "decode", "instance": "localhost"}, "no HOST:PORT"),
        ({"type": "decode", "instance": "h:1/path"}, "no HOST:PORT"),
        ({"type": "decode", "instance": "file://h:1"}, "http"),
        ({"type": "decode", "instance": "h:99999"}, "no HOST:PORT"),
        ({"type": "prefill", "instance": "127.0.0.1:1", "bootstrap": "x"}, "bootstrap"),
        ({"type": "decode", "instance": "127.0.0.1:1"}, "cannot connect"),
    ],
)
async def test_what_cannot_be_added(engines: Any, proxies: Start, body: dict[str, Any], message: str) -> None:
    proxy = await proxies([await engines()], [await engines()])
    status, said = await proxy.admin("/instances/add", **body)
    assert status == 400
    assert message in said["error"]["message"]


async def test_an_instance_of_another_model_is_not_added(engines: Any, proxies: Start) -> None:
    proxy = await proxies([await engines()], [await engines()])
    other = await engines(model="other")
    status, said = await proxy.admin("/instances/add", type="decode", instance=other.address)
    assert status == 400
    assert "it serves other, not" in said["error"]["message"]


async def test_names_and_ipv6(engines: Any, proxies: Start) -> None:
    six, four = await engines(host="::1"), await engines()
    proxy = await proxies([six], [six])
    assert (await proxy.post())[0] == 200
    added = {"type": "decode", "instance": f"localhost:{four.port}"}
    assert (await proxy.admin("/instances/add", **added))[0] == 200
    for _ in range(2):
        assert (await proxy.stream())[1]
    assert len(four.seen) == 1
