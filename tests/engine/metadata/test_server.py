"""The HTTP metadata server, asked as upstream's clients ask it."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import yarl

from engine.errors import StorageError
from engine.metadata import kept
from engine.metadata import server as module
from engine.metadata.kept import Records
from engine.metadata.server import MetadataServer
from tests.ports import closed_port

RPC = "mooncake/rpc_meta/node-1"
RAM = "mooncake/ram/node-1"


@pytest.fixture
async def server() -> AsyncIterator[MetadataServer]:
    made = MetadataServer(Records(max_keys=3, max_bytes=kept.MAX_VALUE + 1000))
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(
    http: aiohttp.ClientSession, server: MetadataServer, method: str, key: str | None, body: bytes | None = None
) -> tuple[int, bytes]:
    params = {} if key is None else {"key": key}
    async with http.request(
        method, server.url, params=params, data=None if body is None else io.BytesIO(body)
    ) as answer:
        return answer.status, await answer.read()


async def test_values_are_kept_verbatim(server: MetadataServer, http: aiohttp.ClientSession) -> None:
    value = b'{ "name" : "x"}\n\x00\xff'
    assert (await ask(http, server, "GET", RAM))[0] == 404
    assert await ask(http, server, "PUT", RAM, value) == (200, b"metadata updated")
    assert await ask(http, server, "GET", RAM) == (200, value)
    assert (await ask(http, server, "DELETE", RAM))[0] == 200
    assert (await ask(http, server, "DELETE", RAM))[0] == 404
    assert (await ask(http, server, "GET", RAM))[0] == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_no_page_of_the_web_reads_or_changes_records(
    server: MetadataServer, http: aiohttp.ClientSession, method: str
) -> None:
    """A browser on this host would ask loopback for any page, whose own host's name may have come to mean that."""
    await ask(http, server, "PUT", RAM, b"{}")
    pages = [{"Host": "example.com:8080"}]
    if method != "GET":  # whose answer the browser keeps to itself
        pages += [{"Origin": "https://example.com"}, {"Sec-Fetch-Site": "cross-site"}]
    for headers in pages:
        async with http.request(method, server.url, params={"key": RAM}, data=b"[]", headers=headers) as answer:
            assert answer.status == 403
    assert await ask(http, server, "GET", RAM) == (200, b"{}")


async def test_a_key_may_be_encoded_as_curl_does(server: MetadataServer, http: aiohttp.ClientSession) -> None:
    url = yarl.URL(f"{server.url}?key=mooncake%2Fram%2Fa%20b%2B", encoded=True)
    async with http.put(url, json={}) as answer:
        assert answer.status == 200
    async with http.get(url) as answer:
        assert await answer.json() == {}
    assert await ask(http, server, "GET", "mooncake/ram/a b+") == (200, b"{}")


async def test_put_is_idempotent_for_rpc_meta_too(server: MetadataServer, http: aiohttp.ClientSession) -> None:
    assert (await ask(http, server, "PUT", RPC, b"1"))[0] == 200
    assert await ask(http, server, "PUT", RPC, b"1") == (200, b"metadata unchanged")
    assert (await ask(http, server, "PUT", RPC, b"2"))[0] == 200
    assert await ask(http, server, "GET", RPC) == (200, b"2")


@pytest.mark.parametrize("key", [None, "", "   ", "k" * (kept.MAX_KEY + 1)])
async def test_bad_keys(server: MetadataServer, http: aiohttp.ClientSession, key: str | None) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert (await ask(http, server, method, key, b"x" if method == "PUT" else None))[0] == 400


async def test_other_methods_and_paths(server: MetadataServer, http: aiohttp.ClientSession) -> None:
    assert (await ask(http, server, "POST", RAM, b"x"))[0] == 405
    async with http.get(f"http://{server.address}/other") as answer:
        assert answer.status == 404
    async with http.get(f"http://{server.address}/health") as answer:
        assert await answer.json() == {"status": "ok", "keys": 0}


async def test_caps(server: MetadataServer, http: aiohttp.ClientSession) -> None:
    assert (await ask(http, server, "PUT", "large", bytes(kept.MAX_VALUE + 1)))[0] == 413
    assert (await ask(http, server, "PUT", "a", bytes(kept.MAX_VALUE)))[0] == 200
    assert (await ask(http, server, "PUT", "b", bytes(2000)))[0] == 507
    assert (await ask(http, server, "PUT", "a", b"small"))[0] == 200
    assert (await ask(http, server, "PUT", "b", bytes(2000)))[0] == 200
    assert (await ask(http, server, "PUT", "c", b""))[0] == 200
    assert (await ask(http, server, "PUT", "d", b""))[0] == 507
    assert (await ask(http, server, "PUT", "c", b"again"))[0] == 200


async def test_records_outlive_the_server_in_a_file(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    path = tmp_path / "metadata.db"
    for expected in (404, 200):
        records = Records(path)
        server = MetadataServer(records)
        await server.start()
        assert (await ask(http, server, "GET", RAM))[0] == expected
        await ask(http, server, "PUT", RAM, b"\x00value")
        await ask(http, server, "PUT", "gone", b"x")
        await ask(http, server, "DELETE", "gone")
        await server.close()
        records.close()
    again = Records(path)
    assert again.get(RAM) == b"\x00value"
    assert len(again) == 1
    again.close()
    with pytest.raises(StorageError):
        Records(tmp_path / "no" / "such" / "directory")


async def test_only_the_dead_expire(http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_TIMEOUT", 60.0)
    records = Records()
    server = MetadataServer(records, expire=0.4)
    await server.start()
    with socket.create_server(("127.0.0.1", 0)) as living:
        for name, port in [("living", living.getsockname()[1]), ("dead", closed_port())]:
            value = json.dumps({"ip_or_host_name": "127.0.0.1", "rpc_port": port}).encode()
            await ask(http, server, "PUT", f"mooncake/c1/rpc_meta/{name}", value)
            await ask(http, server, "PUT", f"mooncake/c1/ram/{name}", b"{}")
        await ask(http, server, "PUT", "mooncake/other", b"{}")
        for _ in range(1200):
            await asyncio.sleep(0.05)
            if len(records) == 2:
                break
        await asyncio.sleep(0.6)
        assert records.get("mooncake/c1/ram/living") == b"{}"
        assert records.get("mooncake/c1/rpc_meta/living") is not None
        assert len(records) == 2
    await server.close()
