"""A node answers its peers what it holds, streams what it gets, and lets no stranger or garbage hurt it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from p2pstore.cluster.auth import HEADER, MAX_SKEW, REALM_HEADER, REFUSAL_HEADER, Signer
from p2pstore.cluster.news import Availability, Queued, Shared
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.cluster.secret import ROTATION_SECONDS, ClusterSecret
from p2pstore.cluster.words import to_line
from p2pstore.errors import (
    ClocksDiffer,
    PeerBusy,
    PeerHasNot,
    PeerUnreachable,
    PeerWithdrew,
    RemoteProtocolError,
    SecretRefused,
)
from p2pstore.objects.bitmap import Bitmap
from p2pstore.peers import peer_server as module
from p2pstore.pull.file_destination import FileDestination
from p2pstore.swarm import audience as audience_module
from p2pstore.swarm.events import Done, Word
from p2pstore.swarm.gateway import Claim, Rank
from p2pstore.swarm.granter import Grant
from tests.clocks import Clock
from tests.p2pstore.peers.owner import Owner, serving
from tests.p2pstore.samples import MIB, content, manifest_of, record_of
from tests.ports import reserved_port

DATA = content(3 * MIB + 5)
MANIFEST = manifest_of({"": DATA}, MIB)
WAIT = 30.0


@pytest.fixture
async def served() -> AsyncIterator[tuple[Owner, str]]:
    async with serving() as both:
        yield both


@pytest.fixture
async def client() -> AsyncIterator[PeerClient]:
    made = PeerClient(None)
    yield made
    await made.close()


async def test_what_it_holds(served: tuple[Owner, str], client: PeerClient) -> None:
    owner, control = served
    await owner.hold("models/a", MANIFEST, DATA)
    assert await client.node(control) == owner.record
    assert await client.name(control, "models/a") == record_of("models/a", MANIFEST)
    assert await client.manifest(control, MANIFEST.digest) == MANIFEST
    assert await client.count(control, MANIFEST.digest) == MANIFEST.chunks


async def test_all_versions_that_it_holds(served: tuple[Owner, str], client: PeerClient) -> None:
    owner, control = served
    other = manifest_of({"": DATA[1:]}, MIB)
    await owner.hold("n", MANIFEST, DATA)
    await owner.hold("m", MANIFEST, DATA)
    assert await client.versions(control, "n") == [record_of("n", MANIFEST)]
    await owner.hold("n", other, DATA[1:])
    assert await client.versions(control, "n") == [record_of("n", other)], "memory has one content a name"
    with pytest.raises(PeerHasNot):
        await client.versions(control, "none")


async def test_a_complaint_is_looked_into(served: tuple[Owner, str], client: PeerClient) -> None:
    owner, control = served
    data = bytearray(DATA)
    await owner.hold("n", MANIFEST, data)  # type: ignore[arg-type]
    assert await client.complain(control, MANIFEST.digest, 0) is False
    assert await client.complain(control, MANIFEST.digest, 0) is None, "not again so soon"
    data[MIB] ^= 1
    assert await client.complain(control, MANIFEST.digest, 1) is True
    with pytest.raises(PeerHasNot):
        await client.complain(control, MANIFEST.digest, 1)


async def test_complaints_that_make_no_sense(served: tuple[Owner, str], client: PeerClient) -> None:
    owner, control = served
    await owner.hold("n", MANIFEST, DATA)
    for chunk in (-1, MANIFEST.chunks, 10**30):
        with pytest.raises(RemoteProtocolError):
            await client.complain(control, MANIFEST.digest, chunk)
    async with aiohttp.ClientSession() as session:
        for query in ("", "?chunk=x", "?chunk="):
            async with session.post(f"http://{control}/v1/replicas/{MANIFEST.digest}/complaints{query}") as answer:
                assert answer.status == 400
        async with session.get(f"http://{control}/v1/replicas/{MANIFEST.digest}/complaints?chunk=0") as answer:
            assert answer.status == 405


async def test_a_complaint_takes_the_secret() -> None:
    async with serving(b"secret") as (owner, control):
        await owner.hold("n", MANIFEST, DATA)
        for secret, expected in ((b"secret", False), (b"other", None)):
            client = PeerClient(secret)
            try:
                assert await client.complain(control, MANIFEST.digest, 0) is expected
            except SecretRefused:
                assert expected is None
            finally:
                await client.close()


async def test_what_it_does_not_hold(served: tuple[Owner, str], client: PeerClient) -> None:
    _, control = served
    with pytest.raises(PeerHasNot):
        await client.name(control, "none &?#/ é")
    with pytest.raises(PeerHasNot):
        await client.manifest(control, "0" * 64)
    with pytest.raises(PeerHasNot):
        await client.count(control, "0" * 64)
    with pytest.raises(PeerHasNot):
        await client.availability(control, MANIFEST).__anext__()


async def test_a_whole_replica_and_its_withdrawal(served: tuple[Owner, str], client: PeerClient) -> None:
    owner, control = served
    holding = await owner.hold("n", MANIFEST, DATA)
    news = client.availability(control, MANIFEST)
    first = await asyncio.wait_for(news.__anext__(), WAIT)
    assert isinstance(first, Availability)
    assert first.have.full
    assert first.address == owner.holdings.replicas[MANIFEST.digest].address > 0
    await owner.holdings.remove(holding)
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(news.__anext__(), WAIT)
    with pytest.raises(PeerHasNot):
        await client.availability(control, MANIFEST).__anext__()


async def test_who_waits_for_others_to_be_served_is_told(
    served: tuple[Owner, str], client: PeerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
    owner, control = served
    await owner.hold("n", MANIFEST, DATA)
    monkeypatch.setattr(owner.engine, "waiting", lambda host: 3 if host == "127.0.0.1" else 0)
    news = client.availability(control, MANIFEST)
    await asyncio.wait_for(news.__anext__(), WAIT)
    assert await asyncio.wait_for(news.__anext__(), WAIT) == Queued(3)
    await news.aclose()  # type: ignore[attr-defined]


async def test_a_withdrawal_says_why(served: tuple[Owner, str], client: PeerClient) -> None:
    owner, control = served
    holding = await owner.hold("n", MANIFEST, DATA)
    news = client.availability(control, MANIFEST)
    await asyncio.wait_for(news.__anext__(), WAIT)
    await owner.holdings.give_up(holding, "it was written to")
    with pytest.raises(PeerWithdrew, match="it was written to"):
        await asyncio.wait_for(news.__anext__(), WAIT)


async def test_a_partial_replica_tells_of_its_chunks(
    served: tuple[Owner, str], client: PeerClient, tmp_path: Path
) -> None:
    owner, control = served
    destination = FileDestination(tmp_path / "dest", MANIFEST, "n")
    destination.verified.add(2)
    replica = await owner.holdings.serve_partial(destination)
    readers = [client.availability(control, MANIFEST) for _ in range(3)]
    for news in readers:
        first = await asyncio.wait_for(news.__anext__(), WAIT)
        assert isinstance(first, Availability)
        assert list(first.have) == [2]
    assert await client.count(control, MANIFEST.digest) == 1
    for run in (range(1), range(1, 2), range(3, 4)):
        destination.verified.update(run)
        await asyncio.to_thread(replica.landed, run)
    for news in readers:
        told: list[int] = []
        while len(told) < 3:
            more = await asyncio.wait_for(news.__anext__(), WAIT)
            assert isinstance(more, list)
            told += more
        assert told == [0, 1, 3]
    assert owner.holdings.drop_partial(replica)
    for news in readers:
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(news.__anext__(), WAIT)
    destination.abort()


async def test_who_gets_from_a_node_hears_who_its_gateway_is(
    served: tuple[Owner, str], client: PeerClient, tmp_path: Path
) -> None:
    owner, control = served
    destination = FileDestination(tmp_path / "dest", MANIFEST, "n")
    replica = await owner.holdings.serve_partial(destination)
    early = client.availability(control, MANIFEST, abroad=True)
    await asyncio.wait_for(early.__anext__(), WAIT)
    claim = Claim(2, 3, Rank.ACTING, 77, own=True)
    await asyncio.to_thread(replica.claims, claim)
    assert await asyncio.wait_for(early.__anext__(), WAIT) == claim
    late = client.availability(control, MANIFEST)
    await asyncio.wait_for(late.__anext__(), WAIT)
    assert await asyncio.wait_for(late.__anext__(), WAIT) == claim
    assert [each.abroad for each in replica._audience._followers.values()] == [True, False]
    for news in (early, late):
        await news.aclose()  # type: ignore[attr-defined]
    destination.abort()


async def spoken(words: asyncio.Queue[Word]) -> AsyncIterator[bytes]:
    """The lines of what is put into a queue."""
    yield b"\n"
    while True:
        yield to_line(await words.get())


async def test_getters_are_granted_different_chunks(served: tuple[Owner, str], client: PeerClient) -> None:
    owner, control = served
    await owner.hold("n", MANIFEST, DATA)
    readers = [client.availability(control, MANIFEST) for _ in range(2)]
    first, second = [await asyncio.wait_for(news.__anext__(), WAIT) for news in readers]
    assert isinstance(first, Availability)
    assert isinstance(second, Availability)
    assert first.grants
    assert (first.shared, second.shared) == (False, True)
    assert await asyncio.wait_for(readers[0].__anext__(), WAIT) == Shared(shared=True)
    words: list[asyncio.Queue[Word]] = [asyncio.Queue(), asyncio.Queue()]
    speaking = [
        asyncio.create_task(client.say(control, MANIFEST.digest, each.listener, lambda said=said: spoken(said)))
        for each, said in zip((first, second), words, strict=True)
    ]
    named: list[int] = []
    for reader, said in zip(readers * 2, words * 2, strict=True):
        grant = await asyncio.wait_for(reader.__anext__(), WAIT)
        assert isinstance(grant, Grant)
        assert grant.run
        named += grant.run
        said.put_nowait(Done("", grant.number, 0, full=False))
    assert sorted(named) == list(range(MANIFEST.chunks))
    for task in speaking:
        task.cancel()
    await asyncio.gather(*speaking, return_exceptions=True)
    replica = owner.holdings.replicas[MANIFEST.digest]
    deadline = time.monotonic() + WAIT
    while replica._audience.granter.under_way:
        assert time.monotonic() < deadline, "the grants of who is heard no more are void"
        await asyncio.sleep(0.01)


async def test_who_does_not_listen_is_not_heard(served: tuple[Owner, str], client: PeerClient) -> None:
    owner, control = served
    await owner.hold("n", MANIFEST, DATA)
    with pytest.raises(PeerHasNot):
        await asyncio.wait_for(client.say(control, MANIFEST.digest, "nobody", lambda: spoken(asyncio.Queue())), WAIT)


async def test_the_words_of_one_that_left_end(
    served: tuple[Owner, str], client: PeerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody may ever say so: where a machine lost its power, its connections stay for hours."""
    monkeypatch.setattr(module, "WORDS_SECONDS", 0.1)
    owner, control = served
    await owner.hold("n", MANIFEST, DATA)
    news = client.availability(control, MANIFEST)
    first = await asyncio.wait_for(news.__anext__(), WAIT)
    assert isinstance(first, Availability)
    said: asyncio.Queue[Word] = asyncio.Queue()
    speaking = asyncio.create_task(client.say(control, MANIFEST.digest, first.listener, lambda: spoken(said)))
    audience = owner.holdings.replicas[MANIFEST.digest]._audience
    deadline = time.monotonic() + WAIT
    while not audience._followers[first.listener].speaks:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await news.aclose()  # type: ignore[attr-defined]
    with pytest.raises(PeerUnreachable):
        await asyncio.wait_for(speaking, WAIT)


@pytest.mark.parametrize("line", [b"no JSON\n", b"[]\n", b'{"done":-1,"under_way":0}\n', b"{" * 5000, b'{"done":1}\n'])
async def test_words_that_are_none_end_it(served: tuple[Owner, str], client: PeerClient, line: bytes) -> None:
    owner, control = served
    await owner.hold("n", MANIFEST, DATA)
    news = client.availability(control, MANIFEST)
    first = await asyncio.wait_for(news.__anext__(), WAIT)
    assert isinstance(first, Availability)

    async def nonsense() -> AsyncIterator[bytes]:
        yield line
        await asyncio.sleep(WAIT)

    with pytest.raises(RemoteProtocolError):
        await asyncio.wait_for(client.say(control, MANIFEST.digest, first.listener, nonsense), WAIT)
    await news.aclose()  # type: ignore[attr-defined]


async def test_a_getter_of_an_earlier_version_is_granted_nothing(served: tuple[Owner, str]) -> None:
    """It says nothing of grants, and asks for what it likes: nobody tells it that it shares."""
    owner, control = served
    await owner.hold("n", MANIFEST, DATA)
    url = f"http://{control}/v1/replicas/{MANIFEST.digest}?seeds=1"
    async with aiohttp.ClientSession() as session, session.get(url) as one, session.get(url) as two:
        for answer in (one, two):
            first = json.loads(await asyncio.wait_for(answer.content.readline(), WAIT))
            assert (first["shared"], first["grants"]) == (False, False)


async def test_a_crowd_is_sent_away(
    served: tuple[Owner, str], client: PeerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audience_module, "MAX_LISTENERS", 1)
    owner, control = served
    await owner.hold("n", MANIFEST, DATA)
    news = client.availability(control, MANIFEST)
    await asyncio.wait_for(news.__anext__(), WAIT)
    with pytest.raises(PeerBusy):
        await client.availability(control, MANIFEST).__anext__()
    await news.aclose()  # type: ignore[attr-defined]


async def test_a_silent_replica_still_shows_that_it_lives(
    served: tuple[Owner, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
    owner, control = served
    await owner.hold("n", MANIFEST, DATA)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{control}/v1/replicas/{MANIFEST.digest}") as answer,
    ):
        first = json.loads(await answer.content.readline())
        assert Bitmap.from_text(first["bitmap"], MANIFEST.chunks).full
        for _ in range(3):
            assert await asyncio.wait_for(answer.content.readline(), WAIT) == b"{}\n"


async def test_a_reader_that_leaves_is_forgotten(served: tuple[Owner, str], client: PeerClient) -> None:
    owner, control = served
    await owner.hold("n", MANIFEST, DATA)
    replica = owner.holdings.replicas[MANIFEST.digest]
    news = client.availability(control, MANIFEST)
    await news.__anext__()
    assert len(replica._listeners) == 1
    await news.aclose()  # type: ignore[attr-defined]

    async def forgotten() -> None:
        while replica._listeners:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)

    await asyncio.wait_for(forgotten(), WAIT)


async def test_closing_ends_the_streams(client: PeerClient) -> None:
    async with serving() as (owner, control):
        await owner.hold("n", MANIFEST, DATA)
        news = client.availability(control, MANIFEST)
        await news.__anext__()
        ended = asyncio.ensure_future(news.__anext__())
    with contextlib.suppress(StopAsyncIteration, Exception):
        await asyncio.wait_for(ended, WAIT)
    assert ended.done()


SECRET = b"the secret of the cluster"
PATHS = ["/v1/peer", "/v1/names?name=n", f"/v1/manifests/{MANIFEST.digest}", f"/v1/replicas/{MANIFEST.digest}/count"]


async def test_with_the_secret_everything_is_answered() -> None:
    async with serving(SECRET) as (owner, control):
        await owner.hold("n/m", MANIFEST, DATA)
        client = PeerClient(SECRET)
        try:
            assert await client.node(control) == owner.record
            assert (await client.name(control, "n/m")).manifest == MANIFEST.digest
            assert await client.manifest(control, MANIFEST.digest) == MANIFEST
            assert isinstance(await client.availability(control, MANIFEST).__anext__(), Availability)
        finally:
            await client.close()


@pytest.mark.parametrize("secret", [None, b"another"])
async def test_without_the_secret_nothing_is(secret: bytes | None) -> None:
    async with serving(SECRET) as (owner, control):
        await owner.hold("n", MANIFEST, DATA)
        client = PeerClient(secret)
        try:
            for ask in (
                client.node(control),
                client.name(control, "n"),
                client.manifest(control, MANIFEST.digest),
                client.count(control, MANIFEST.digest),
                client.availability(control, MANIFEST).__anext__(),
            ):
                with pytest.raises(SecretRefused):
                    await ask
        finally:
            await client.close()


async def realm_of(session: aiohttp.ClientSession, control: str) -> str:
    async with session.get(f"http://{control}/v1/health") as answer:
        return answer.headers[REALM_HEADER]


@pytest.mark.parametrize("path", PATHS)
async def test_a_signature_is_for_one_path_and_one_time(path: str) -> None:
    async with serving(SECRET) as (owner, control), aiohttp.ClientSession() as session:
        await owner.hold("n", MANIFEST, DATA)
        realm, signer = await realm_of(session, control), Signer()

        async def status(header: str, method: str = "GET", why: str = "") -> int:
            async with session.request(method, f"http://{control}{path}", headers={HEADER: header}) as answer:
                assert answer.headers.get(REFUSAL_HEADER, "") == why
                return answer.status

        assert await status(signer.sign(SECRET, "GET", path, realm)) == 200
        assert await status(signer.sign(SECRET, "HEAD", path, realm), why="secret") == 403
        assert await status(signer.sign(SECRET, "GET", "/v1/other", realm), why="secret") == 403
        assert await status(signer.sign(SECRET, "GET", path, "00"), why="secret") == 403
        for skew in (-MAX_SKEW - 60, MAX_SKEW + 60):
            late = signer.sign(SECRET, "GET", path, realm, now=time.time() + skew)
            assert await status(late, why="clock") == 403
        assert await status("", why="secret") == 403
        assert await status("é", why="secret") == 403


async def test_a_request_that_was_recorded_is_answered_once() -> None:
    async with (
        serving(SECRET) as (_, control),
        serving(SECRET) as (_, other),
        aiohttp.ClientSession() as session,
    ):
        headers = {HEADER: Signer().sign(SECRET, "GET", "/v1/peer", await realm_of(session, control))}
        for node, status, why in ((control, 200, None), (control, 403, "replay"), (other, 403, "secret")):
            async with session.get(f"http://{node}/v1/peer", headers=headers) as answer:
                assert (answer.status, answer.headers.get(REFUSAL_HEADER)) == (status, why)


async def test_a_client_knows_clocks_that_differ_from_a_secret_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    sign = Signer.sign
    monkeypatch.setattr(Signer, "sign", lambda *args: sign(*args, now=time.time() - 2 * MAX_SKEW))
    async with serving(SECRET) as (_, control):
        client = PeerClient(SECRET)
        try:
            with pytest.raises(ClocksDiffer, match="differ by more than 300 seconds"):
                await client.node(control)
        finally:
            await client.close()


async def test_a_node_that_was_started_again_is_met_again() -> None:
    client = PeerClient(SECRET)
    try:
        port = reserved_port()
        async with serving(SECRET, port=port) as (_, control):
            await client.node(control)
        async with serving(SECRET, port=port) as (owner, again):
            assert again == control
            assert await client.node(control) == owner.record
    finally:
        await client.close()


async def test_nodes_understand_one_another_while_the_secret_is_changed(tmp_path: Path) -> None:
    """Whichever gets the new one first, and whoever asks."""
    files = [tmp_path / name for name in ("one", "two")]
    for file in files:
        file.write_bytes(SECRET)
    clocks = [Clock(), Clock()]
    one, two = [ClusterSecret(file, clock=clock) for file, clock in zip(files, clocks, strict=True)]
    stranger = PeerClient(b"a secret that was never the cluster's")
    clients = [PeerClient(one), PeerClient(two)]
    try:
        async with serving(one) as (_, first), serving(two) as (_, second):
            for changed in range(3):
                if changed:
                    files[changed - 1].write_bytes(b"the next secret of the cluster")
                    for clock in clocks:
                        clock.now += 5
                await clients[0].node(second)
                await clients[1].node(first)
                with pytest.raises(SecretRefused):
                    await stranger.node(first)
            for clock in clocks:
                clock.now += ROTATION_SECONDS
            late = PeerClient(SECRET)
            clients.append(late)
            with pytest.raises(SecretRefused):
                await late.node(first)
    finally:
        for each in (stranger, *clients):
            await each.close()


async def test_health_needs_no_secret_and_nothing_can_be_written() -> None:
    async with serving(SECRET) as (_, control), aiohttp.ClientSession() as session:
        async with session.get(f"http://{control}/v1/health") as answer:
            assert (answer.status, await answer.json()) == (200, {"ok": True})
        realm = await realm_of(session, control)
        for path in ("/v1/peer", "/v1/names", "/v1/stop", "/"):
            for method in ("POST", "PUT", "DELETE"):
                signed = {HEADER: Signer().sign(SECRET, method, path, realm)}
                async with session.request(method, f"http://{control}{path}", data=b"x", headers=signed) as answer:
                    assert answer.status in {403, 404, 405}


GARBAGE = [
    b"\0" * 100,
    b"\xff" * 100_000,
    b"GET",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /v1/peer HTTP/1.1\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /v1/peer HTTP/1.1\r\n" + b"A: b\r\n" * 10_000 + b"\r\n",
    b"POST /v1/peer HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\nx",
    b"POST /v1/peer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /v1/peer HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"GET /v1/names?name=%ff%00%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /v1/manifests/..%2f..%2fetc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"MCTV" * 6,
]


@pytest.mark.parametrize("secret", [None, SECRET])
async def test_garbage_on_its_port_does_no_harm(secret: bytes | None) -> None:
    async with serving(secret) as (owner, control):
        host, port = control.split(":")
        for garbage in GARBAGE:
            reader, writer = await asyncio.open_connection(host, int(port))
            with contextlib.suppress(OSError):
                writer.write(garbage)
                await writer.drain()
                writer.write_eof()
                answer = await asyncio.wait_for(reader.read(), WAIT)
                assert not answer or answer.startswith(b"HTTP/1.")
                assert b"200 OK" not in answer
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        client = PeerClient(secret)
        try:
            assert await client.node(control) == owner.record
        finally:
            await client.close()


async def test_too_many_are_told_to_come_later(client: PeerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)
    async with serving() as (owner, control), aiohttp.ClientSession() as session:
        await owner.hold("n", MANIFEST, DATA)
        readers = [client.availability(control, MANIFEST) for _ in range(2)]
        for news in readers:
            await news.__anext__()
        async with session.get(f"http://{control}/v1/peer") as answer:
            assert answer.status == 503
        await readers[0].aclose()  # type: ignore[attr-defined]

        async def answered() -> None:
            while True:
                async with session.get(f"http://{control}/v1/peer") as answer:
                    if answer.status == 200:
                        return

        await asyncio.wait_for(answered(), WAIT)
        await readers[1].aclose()  # type: ignore[attr-defined]
