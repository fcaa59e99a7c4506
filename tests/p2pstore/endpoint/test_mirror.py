"""Repositories of a hub through several nodes: each file is read there once, and nodes without the hub are served, too."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from yarl import URL

from p2pstore.cluster.claims import claim, claimant
from p2pstore.endpoint import arriving
from p2pstore.endpoint import mirror as module
from p2pstore.endpoint import server as serving
from p2pstore.errors import PeerHasNot, PeerUnreachable, RemoteError
from p2pstore.hub import patience
from p2pstore.hub.hub import Hub
from p2pstore.hub.listing import blob_name
from p2pstore.hub.routes import Route
from p2pstore.node import Node
from p2pstore.objects.manifest import Manifest
from p2pstore.origins import gathering as gathering_module
from p2pstore.origins import patient
from tests.p2pstore.endpoint.served import Endpoint, endpoint, make
from tests.p2pstore.hub.stand_in import StandIn
from tests.p2pstore.nodes import Start, register, root, start
from tests.p2pstore.samples import MIB, content

__all__ = ["endpoint", "make", "root", "start"]

NAME = "org/n"
BIG = "m.safetensors"
FILES = {"config.json": b"{}", BIG: content(6 * MIB + 3), "sub/b é.txt": b"b", "empty": b""}
WAIT = 60.0
Serve = Callable[..., Awaitable[str]]


@pytest.fixture
def hub() -> Iterator[StandIn]:
    made = StandIn()
    made.repos[NAME] = dict(FILES)
    yield made
    made.close()


@pytest.fixture
def serve(hub: StandIn, endpoint: Endpoint) -> Serve:
    """Serves the interface of a node, which knows the hub unless told otherwise."""

    async def server(node: Node, *, upstream: bool = True) -> str:
        return (await endpoint(node, hub.url if upstream else None))[0]

    return server


async def snapshot(endpoint: str, place: Path, **options: Any) -> dict[str, bytes]:
    work = functools.partial(
        huggingface_hub.snapshot_download, NAME, endpoint=endpoint, cache_dir=place, token=False, **options
    )
    root = Path(await asyncio.wait_for(asyncio.to_thread(work), WAIT))
    return await asyncio.to_thread(
        lambda: {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    )


async def ask(url: str | URL, **options: Any) -> tuple[int, Any, bytes]:
    async with aiohttp.ClientSession() as session, session.get(url, **options) as answer:
        return answer.status, answer.headers, await answer.read()


async def test_a_node_reads_the_hub_and_others_read_that_node(
    start: Start, serve: Serve, hub: StandIn, tmp_path: Path
) -> None:
    first = await serve(await start("one"))
    assert await snapshot(first, tmp_path / "1") == FILES
    hub.down = True
    assert await snapshot(await serve(await start("two")), tmp_path / "2") == FILES
    assert await snapshot(await serve(await start("three"), upstream=False), tmp_path / "3") == FILES
    assert await snapshot(first, tmp_path / "4", revision=hub.commit(NAME)) == FILES
    assert hub.sent == {path: len(data) for path, data in FILES.items() if data}


async def test_nodes_that_come_together_read_it_once(
    start: Start, serve: Serve, hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arriving, "LOOKS_SECONDS", WAIT)
    monkeypatch.setattr(serving, "PATIENCE_SECONDS", WAIT)
    endpoints = [await serve(await start(f"node{number}")) for number in range(3)]
    found = await asyncio.gather(*(snapshot(url, tmp_path / str(n)) for n, url in enumerate(endpoints)))
    assert found == [FILES] * 3
    assert hub.sent == {path: len(data) for path, data in FILES.items() if data}


async def test_xet_is_taken_out(start: Start, serve: Serve) -> None:
    endpoint = await serve(await start("one"))
    status, headers, body = await ask(f"{endpoint}/{NAME}/resolve/main/{BIG}")
    assert (status, body) == (200, FILES[BIG])
    _, _, tree = await ask(f"{endpoint}/api/models/{NAME}/tree/main?recursive=true")
    assert "xet" not in str(headers).lower()
    assert b"xet" not in tree


async def test_clients_read_while_it_comes(start: Start, serve: Serve, hub: StandIn) -> None:
    endpoint = await serve(await start("one"))
    hub.hold.clear()
    url = f"{endpoint}/{NAME}/resolve/main/{BIG}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        first = await asyncio.wait_for(answer.content.readexactly(2 * MIB), WAIT)
        status, _, middle = await ask(url, headers={"Range": "bytes=1000-1999"})
        assert (status, middle) == (206, FILES[BIG][1000:2000])
        hub.hold.set()
        rest = await asyncio.wait_for(answer.content.read(), WAIT)
    assert first + rest == FILES[BIG]
    assert hub.sent[BIG] == len(FILES[BIG])


async def test_it_goes_on_after_the_hub_broke_off(
    start: Start, serve: Serve, hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient, "RETRIES", patient.Backoff(0.01, 0.01))
    hub.break_after[BIG] = [2 * MIB, MIB]
    endpoint = await serve(await start("one"))
    status, _, body = await ask(f"{endpoint}/{NAME}/resolve/main/{BIG}")
    assert (status, body) == (200, FILES[BIG])


async def test_wrong_bytes_of_the_hub_reach_nobody_whole(start: Start, serve: Serve, hub: StandIn) -> None:
    node = await start("one")
    endpoint = await serve(node)
    hub.wrong.add(BIG)
    hub.hold.clear()  # else all might be there, and be found wrong, before the first byte is given out
    url = f"{endpoint}/{NAME}/resolve/main/{BIG}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        await asyncio.wait_for(answer.content.readexactly(MIB), WAIT)
        hub.hold.set()
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(answer.content.read(), WAIT)
    hub.wrong.clear()

    async def right() -> bytes:
        while (answer := await ask(url))[0] != 200:  # noqa: ASYNC110 - the claim is just given back
            await asyncio.sleep(0.02)
        return answer[2]

    assert await asyncio.wait_for(right(), WAIT) == FILES[BIG]


async def test_a_file_that_is_wrong_before_its_first_byte_is_given_out_is_refused(
    start: Start, serve: Serve, hub: StandIn
) -> None:
    hub.repos[NAME]["one.bin"] = b"1"  # its only byte is its last, which is kept back
    hub.wrong.add("one.bin")
    status, headers, _ = await ask(f"{await serve(await start('one'))}/{NAME}/resolve/main/one.bin")
    assert status == 429
    assert "is not what it says it has" in headers["X-Error-Message"]


async def test_what_another_node_reads_is_waited_for(
    start: Start, serve: Serve, hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "PATIENCE_SECONDS", WAIT)
    monkeypatch.setattr(arriving, "LOOKS_SECONDS", 0.5)
    monkeypatch.setattr(gathering_module, "LOOK_SECONDS", 0.02)
    one, other = await start("one"), await start("other")
    endpoint = await serve(one)
    oid = next(file.oid for file in hub.files(NAME) if file.path == BIG)
    assert await claim(other.registry, blob_name(oid))
    status, headers, _ = await ask(f"{endpoint}/{NAME}/resolve/main/{BIG}")
    assert (status, headers["Retry-After"]) == (429, str(arriving.READ_ELSEWHERE_SECONDS))
    assert "another node" in headers["X-Error-Message"]
    monkeypatch.setattr(arriving, "LOOKS_SECONDS", WAIT)
    await other.registry.store.revoke(other.registry.lease)
    assert (await ask(f"{endpoint}/{NAME}/resolve/main/{BIG}"))[2] == FILES[BIG]

    async def given_back() -> None:
        while await claimant(one.registry, blob_name(oid)):  # noqa: ASYNC110 - in a store
            await asyncio.sleep(0.02)

    await asyncio.wait_for(given_back(), WAIT)


@pytest.mark.parametrize("fault", [PeerHasNot(peer="x", what="it"), PeerUnreachable(peer="x", detail="it ends")])
async def test_who_had_a_file_a_moment_ago_is_looked_past(
    start: Start, serve: Serve, hub: StandIn, monkeypatch: pytest.MonkeyPatch, fault: RemoteError
) -> None:
    """It may just have given that up, or have died: its record says otherwise for a while."""
    assert (await ask(f"{await serve(await start('one'))}/{NAME}/resolve/main/{BIG}"))[0] == 200
    other = await start("other")
    endpoint = await serve(other, upstream=False)
    asked = other.parts.client.manifest
    faults: Counter[str] = Counter()

    async def gone(control: str, digest: str) -> Manifest:
        faults[digest] += 1
        if faults[digest] < 3:
            raise fault
        return await asked(control, digest)

    monkeypatch.setattr(other.parts.client, "manifest", gone)
    monkeypatch.setattr(serving, "PATIENCE_SECONDS", WAIT)
    monkeypatch.setattr(module, "LOOKS_SECONDS", WAIT)
    status, _, body = await ask(f"{endpoint}/{NAME}/resolve/main/{BIG}")
    assert (status, body) == (200, FILES[BIG])
    assert sorted(faults.values()) == [3, 3]  # the listing and the file
    monkeypatch.setattr(module, "LOOKS_SECONDS", 0.0)
    monkeypatch.setattr(patience, "PEER_PATIENCE_SECONDS", 0.0)
    faults.update(dict.fromkeys(faults, -99))
    third = await start("third")
    monkeypatch.setattr(third.parts.client, "manifest", gone)
    assert (await ask(f"{await serve(third, upstream=False)}/{NAME}/resolve/main/{BIG}"))[0] == 429


async def test_an_object_goes_before_the_hub(start: Start, serve: Serve, hub: StandIn, root: Path) -> None:
    one = await start("one")
    made = await register(one, root, NAME)
    endpoint = await serve(one)
    found = huggingface_hub.HfApi(endpoint, token=False).model_info
    assert (await asyncio.to_thread(found, NAME)).sha == made["manifest"][:40]
    assert (await asyncio.to_thread(found, NAME, revision="v1")).sha == hub.commit(NAME)


async def test_what_the_hub_refuses(start: Start, serve: Serve, hub: StandIn) -> None:
    endpoint = await serve(await start("one"))
    info = huggingface_hub.HfApi(endpoint, token=False).model_info
    with pytest.raises(RepositoryNotFoundError):
        await asyncio.to_thread(info, "org/none")
    with pytest.raises(RevisionNotFoundError):
        await asyncio.to_thread(info, NAME, revision="v9")
    hub.token = "secret"
    with pytest.raises(GatedRepoError):
        await asyncio.to_thread(info, NAME)


async def test_no_name_leads_to_another_path_of_the_hub(start: Start, serve: Serve, hub: StandIn) -> None:
    """With the token of this node's user."""
    endpoint = await serve(await start("one"))
    for path in ("..%2F..%2Fx", "%2e%2e/x", "org/%2e%2e", "org%2Fn%2F.."):
        assert (await ask(URL(f"{endpoint}/api/models/{path}", encoded=True)))[0] == 404, path
        assert (await ask(URL(f"{endpoint}/{path}/resolve/main/config.json", encoded=True)))[0] == 404, path
    assert (await ask(URL(f"{endpoint}/api/models/{NAME}/revision/%2e%2e", encoded=True)))[0] == 404
    assert hub.asked == []


async def test_a_clients_token_goes_no_further(
    start: Start, serve: Serve, hub: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients show theirs to whatever HF_ENDPOINT is. Neither the hub nor a log is told of it."""
    caplog.set_level(logging.DEBUG)
    secret = "hf_of_the_client_alone"
    endpoint = await serve(await start("one"))
    work = functools.partial(
        huggingface_hub.snapshot_download, NAME, endpoint=endpoint, cache_dir=tmp_path, token=secret
    )
    await asyncio.wait_for(asyncio.to_thread(work), WAIT)
    headers = {"Authorization": f"Bearer {secret}"}
    for path in ("/nonsense", f"/{NAME}/resolve/main/none", "/api/models/org/none", "/api/whoami-v2"):
        assert (await ask(endpoint + path, headers=headers))[0] == 404
    assert hub.asked
    assert {token for _, _, token in hub.asked} == {""}
    assert caplog.records
    assert secret not in caplog.text


async def test_a_hub_that_is_away_is_no_503(start: Start, serve: Serve, hub: StandIn) -> None:
    endpoint = await serve(await start("one"))
    hub.down = True
    assert (await ask(f"{endpoint}/api/models/{NAME}"))[0] == 429


async def test_without_a_hub_there_is_what_the_cluster_has(start: Start, serve: Serve, hub: StandIn) -> None:
    endpoint = await serve(await start("one"), upstream=False)
    status, headers, _ = await ask(f"{endpoint}/api/models/{NAME}")
    assert (status, headers["X-Error-Code"]) == (404, "RepoNotFound")
    assert hub.asked == []


async def test_whoever_asks_first_and_leaves_does_not_end_the_question(
    start: Start, hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client waits less long than a hub may take: what it asks again is answered by what was begun for it."""
    node = await start("one")
    parts = Hub(node.parts, node.supervisor, upstream=hub.url)
    assert parts.upstream is not None
    real, calls, asked, go_on = parts.upstream.listing, list[str](), asyncio.Event(), asyncio.Event()

    async def late(kind: str, repo: str, revision: str) -> Any:
        calls.append(repo)
        asked.set()
        await go_on.wait()
        return await real(kind, repo, revision)

    monkeypatch.setattr(parts.upstream, "listing", late)
    route = Route("resolve", "models", NAME, "main", BIG)
    first = asyncio.create_task(parts.listings.find(route))
    await asyncio.wait_for(asked.wait(), WAIT)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(parts.listings.find(route))
    await asyncio.sleep(0)
    go_on.set()
    found = await asyncio.wait_for(second, WAIT)
    assert (found.commit, calls) == (hub.commit(NAME), [NAME])
    await parts.close()
