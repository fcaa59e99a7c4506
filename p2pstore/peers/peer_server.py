"""What a node answers to other nodes, over TCP: who it is, names, manifests, and which chunks it has.

Peers read, and complain; a complaint makes a node read again what it serves, which is bounded.

::

    GET /v1/health                     {"ok": true}, without a secret: for load balancers and probes. Where there is a
                                       secret, a header tells the realm that requests are signed for
    GET /v1/peer                       the node's record
    GET /v1/key                        {"key"}: what its data plane wants to be shown; empty where it serves everybody
    GET /v1/sample                     {"address","length"}: bytes that say nothing, to try a way with
    GET /v1/paths?control=HOST:PORT    {"checks":[..]}: each way from this node to the asker, which is there
    GET /v1/names?name=N               the object record of a name that this node holds
    GET /v1/manifests/DIGEST           the manifest's canonical bytes
    GET /v1/replicas/DIGEST?seeds=1&grants=1&abroad=1
                                       a stream of lines: {"address","bitmap","key","listener","shared","grants"}, then
                                       {"have":[[first,count],..]}, {"shared":bool} when that changes,
                                       {"gateway":[share,term,rank,token],"own":bool}: who fetches a share of the chunks
                                       from other zones, for this node's, as far as it knows,
                                       {"grant":number,"window":n,"lead":part,"run":[[first,count]]} for leave to
                                       fetch that run, or any, where none is named (to who takes grants),
                                       {} when there is no news, or {"queued":n} while so many requests of the
                                       asker's wait until others are served, {"gone":true,"why":text} at the end;
                                       503 when too many listen. With ``Upgrade: mooncake-lines`` the same lines
                                       without HTTP, and on the same connection the words below
    GET /v1/replicas/DIGEST/count      {"chunks": n}
    GET /v1/oids/DIGEST?file=N&way=W   {"oid"}: what git, or Git LFS, calls the content of the file of that number;
                                       503 while it is read for that
    POST /v1/replicas/DIGEST/words?listener=KEY
                                       a body of lines without an end: {"under_way":n} when there is room for a
                                       fetch, {"declined":number,"under_way":n,"full":bool} and
                                       {"done":number,"under_way":n,"full":bool} of grants
    POST /v1/replicas/DIGEST/complaints?chunk=N
                                       {"wrong": bool or null}: whether the chunk, of which the asker got wrong
                                       bytes, is wrong here, too; null when that was not looked at
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from aiohttp import web

from engine.net import addresses
from engine.net.http_server import HttpServer, let_in
from engine.net.within import within
from p2pstore.cluster.auth import CLOCK, HEADER, MAX_SKEW, REALM_HEADER, REFUSAL_HEADER, REPLAY, SECRET, Gate
from p2pstore.cluster.news import NOTHING, News
from p2pstore.cluster.news_lines import HEARTBEAT_SECONDS
from p2pstore.cluster.records import MAX_VERSIONS, encode
from p2pstore.cluster.secret import ClusterSecret, cluster_secret
from p2pstore.cluster.words import MAX_WORD_BYTES, from_line
from p2pstore.holding.parts import Parts
from p2pstore.holding.replica import Listener, Replica
from p2pstore.objects.oid import DIGITS
from p2pstore.peers.checks import warning
from p2pstore.peers.conversation import Conversation, changes_to_lines
from p2pstore.peers.encoded import EncodedManifests
from p2pstore.peers.http_log import http_log
from p2pstore.peers.sample import SAMPLE_BYTES, Sample
from p2pstore.peers.telling import grant_line, line, news_line
from p2pstore.peers.ways import there, to_json
from p2pstore.swarm.granter import Grant

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_CONNECTIONS = 4096
"""Streams and requests at once; more are told to come later."""

WORDS_SECONDS = 10.0
"""For a listener that has left to end its words, before its connection is closed: it may be dead without a sign."""

OID_SECONDS = 5.0
"""For a file to be read whose name by content is asked for; who asks comes again."""

SHUTDOWN_SECONDS = 1.0
"""For requests under way when the node closes."""

_REFUSALS = {
    SECRET: "the cluster secret is missing or differs",
    CLOCK: f"the clocks differ by more than {MAX_SKEW:g} seconds",
    REPLAY: "this request has been here before",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PeerServer:
    """The control plane of one node for its peers."""

    def __init__(self, parts: Parts, secret: bytes | ClusterSecret | None) -> None:
        self._parts = parts
        self._secret = cluster_secret(secret)
        self._gate = Gate()
        self._realm = {REALM_HEADER: self._gate.realm}
        self._open = 0
        self._hearing: dict[str, asyncio.Task[Any] | None] = {}  # requests with words, by their listeners' keys
        self._manifests = EncodedManifests()
        self._sample = Sample(parts.engine)
        app = web.Application(middlewares=[self._guard], client_max_size=1)
        app.router.add_get("/v1/health", self._health)
        app.router.add_get("/v1/peer", self._peer)
        app.router.add_get("/v1/key", self._key)
        app.router.add_get("/v1/names", self._name)
        app.router.add_get("/v1/versions", self._versions)
        app.router.add_get("/v1/paths", self._paths)
        app.router.add_get("/v1/sample", self._sample_address)
        app.router.add_get("/v1/manifests/{digest}", self._manifest)
        app.router.add_get("/v1/replicas/{digest}", self._replica)
        app.router.add_get("/v1/replicas/{digest}/count", self._count)
        app.router.add_get("/v1/oids/{digest}", self._oid)
        app.router.add_post("/v1/replicas/{digest}/words", self._words)
        app.router.add_post("/v1/replicas/{digest}/complaints", self._complaint)
        self._server = HttpServer(app, logger=http_log, shutdown_seconds=SHUTDOWN_SECONDS, cancels=True)

    async def start(self, listener: socket.socket) -> None:
        """Serve on a listening socket, which is closed in the end."""
        await self._server.start(listener)

    async def close(self) -> None:
        """Stop listening, and end what is under way."""
        self._sample.close()
        await self._server.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != "/v1/health" and self._secret is not None:
            header = request.headers.get(HEADER, "")
            refusal = self._gate.refusal(await self._secret.good(), header, request.method, request.raw_path)
            if refusal:
                log.warning("refused %s from %s: %s", ascii(request.path), request.remote, _REFUSALS[refusal])
                raise web.HTTPForbidden(text=_REFUSALS[refusal], headers={REFUSAL_HEADER: refusal, **self._realm})
        if request.path != "/v1/health" or self._secret is None:
            let_in(request)
        if self._open >= MAX_CONNECTIONS:
            raise web.HTTPServiceUnavailable(text="too many connections")
        self._open += 1
        try:
            with self._parts.counts.peer_requests.one():
                return await handler(request)
        finally:
            self._open -= 1

    async def _health(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"ok": True}, headers=None if self._secret is None else self._realm)

    async def _peer(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=encode(self._parts.record), content_type="application/json")

    async def _key(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"key": self._parts.engine.key})

    async def _paths(self, request: web.Request) -> web.StreamResponse:
        """Try the ways to whoever asks, and to nobody else: a node is no scanner of others' ports."""
        control = request.query.get("control", "")
        try:
            host, _ = addresses.parse(control)
        except addresses.BadAddress as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        if host == request.remote:
            checks, _ = await there(self._parts, control)
        else:
            detail = f"we see you as {request.remote}, and you call yourself {host}"
            checks = [
                warning(f"{self._parts.record.node} to {control}", detail, "see 'advertise' in 'mooncake config show'")
            ]
        return web.json_response({"checks": to_json(checks)})

    async def _sample_address(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"address": await self._sample.address(), "length": SAMPLE_BYTES})

    async def _name(self, request: web.Request) -> web.StreamResponse:
        name = request.query.get("name", "")
        held = self._parts.holdings.named(name)
        if not held:
            raise web.HTTPNotFound(text="this node holds nothing of that name")
        return web.Response(body=encode(held[0].record), content_type="application/json")

    async def _versions(self, request: web.Request) -> web.StreamResponse:
        held = self._parts.holdings.named(request.query.get("name", ""))
        if not held:
            raise web.HTTPNotFound(text="this node holds nothing of that name")
        records = {holding.digest: encode(holding.record) for holding in held[:MAX_VERSIONS]}
        return web.Response(body=b"\n".join(records.values()), content_type="application/x-ndjson")

    async def _manifest(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        manifest = await self._held(digest, self._parts.holdings.manifest)
        body = await self._manifests.of(digest, manifest)
        return web.Response(body=body, content_type="application/json")

    async def _find(self, request: web.Request) -> Replica:
        return await self._held(request.match_info["digest"], self._parts.holdings.replicas.get)

    async def _held(self, digest: str, find: Callable[[str], T | None]) -> T:
        """What is held of a content, as soon as it is: a name is known to others a moment before it can be served."""
        found = find(digest)
        if found is None:
            await self._parts.holdings.expected.over(digest)
            found = find(digest)
        if found is None:
            raise web.HTTPNotFound(text="this node does not hold it")
        return found

    async def _count(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"chunks": (await self._find(request)).have.count})

    async def _oid(self, request: web.Request) -> web.StreamResponse:
        """What a file is called by its content, if all of it is here. To find out goes on when the asker is gone."""
        manifest = (await self._find(request)).manifest
        way, number = request.query.get("way", ""), request.query.get("file", "")
        if way not in DIGITS or not number.isdecimal() or int(number) >= len(manifest.files):
            raise web.HTTPBadRequest(text="file is the number of one, and way is how it is called")
        finding = self._parts.oids.of(manifest, int(number), way)
        try:
            oid = await within(finding, OID_SECONDS)
        except asyncio.TimeoutError:
            raise web.HTTPServiceUnavailable(text="the file is being read") from None
        if not oid:
            raise web.HTTPNotFound(text="this node does not have all of that file")
        return web.json_response({"oid": oid})

    async def _words(self, request: web.Request) -> web.StreamResponse:
        """Hear what a listener says, for as long as it does."""
        replica = await self._find(request)
        key = request.query.get("listener", "")
        if not replica.speaks(key):
            raise web.HTTPNotFound(text="nobody who listens to this and takes grants")
        self._hearing[key] = asyncio.current_task()
        try:
            rest = b""
            async for part in request.content.iter_any():
                *lines, rest = (rest + part).split(b"\n")
                for line in filter(None, lines):
                    replica.said(key, from_line(line))
                if len(rest) > MAX_WORD_BYTES:
                    raise web.HTTPBadRequest(text="a word that is too long")
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        finally:
            del self._hearing[key]
            replica.hushed(key)
        return web.Response()

    async def _complaint(self, request: web.Request) -> web.StreamResponse:
        replica = await self._find(request)
        try:
            chunk = int(request.query.get("chunk", ""))
        except ValueError:
            chunk = -1
        if not 0 <= chunk < replica.manifest.chunks:
            raise web.HTTPBadRequest(text="chunk is the number of one")
        return web.json_response({"wrong": await self._parts.checker.complaint(replica.manifest.digest, chunk)})

    async def _replica(self, request: web.Request) -> web.StreamResponse:
        replica = await self._find(request)
        if replica.crowded:
            raise web.HTTPServiceUnavailable(text="this node is serving as many receivers as it can")
        seeds, grants, abroad = (request.query.get(name) == "1" for name in ("seeds", "grants", "abroad"))
        self._parts.holdings.use(request.match_info["digest"])
        # Nobody else comes in between.
        counted = self._parts.counts.listens.one()
        with (
            counted,
            replica.listen(seeds=seeds, grants=grants, abroad=abroad) as listener,
            self._follows(listener.key),
        ):
            claims = replica.claimed  # later ones are news: one that is heard after a better one means another thing
            first = {"address": replica.address, "bitmap": replica.have.to_text(), "key": self._parts.engine.key}
            first |= {"listener": listener.key, "shared": listener.shared, "grants": grants}
            begin = line(first) + b"".join(map(news_line, claims))
            remote = request.remote or ""
            if changes_to_lines(request):
                await self._converse(request, replica, listener, begin)
                return web.Response()  # nobody hears it: the connection is closed
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            await response.prepare(request)
            await response.write(begin)
            over = False
            while not over:
                news = await listener.hear(HEARTBEAT_SECONDS)
                over = None in news
                await response.write(b"".join(self._told(each, replica, remote) for each in news))
            return response

    async def _converse(self, request: web.Request, replica: Replica, listener: Listener, begin: bytes) -> None:
        """Tell a listener news and hear what it says, over one connection."""
        remote = request.remote or ""
        conversation = Conversation(
            request,
            listener,
            lambda news: self._told(news, replica, remote),
            lambda word: replica.said(listener.key, word),
        )
        replica.speaks(listener.key)
        await conversation.until_over(begin)

    def _told(self, news: News | None, replica: Replica, remote: str) -> bytes:
        """The line that tells a listener of it."""
        if news is None:
            return line({"gone": True, "why": replica.reason})
        if isinstance(news, Grant):
            return grant_line(news)
        if news is NOTHING and (queued := self._parts.engine.waiting(remote)):
            return line({"queued": queued})
        return news_line(news)

    @contextmanager
    def _follows(self, key: str) -> Iterator[None]:
        """A listener is there; what it says is not waited for when it has left."""
        try:
            yield
        finally:
            if (hearing := self._hearing.get(key)) is not None:
                asyncio.get_running_loop().call_later(WORDS_SECONDS, hearing.cancel)
