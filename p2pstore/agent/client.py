"""The agent's API from the other side of its Unix socket, with the standard library alone: what can be asked.

``p2pstore.agent.socket_calls`` is how.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

from p2pstore.agent.batches import joined
from p2pstore.agent.cache_calls import CacheCalls
from p2pstore.agent.connection import CREDENTIALS, UnixConnection, socket_of
from p2pstore.agent.home import Home
from p2pstore.agent.sight import check_result, check_shared, sight, sight_of_destination, sight_of_source
from p2pstore.agent.socket_calls import SocketCalls
from p2pstore.errors import AgentGone, AgentNotRunning, AgentStarting, JobCut, MooncakeError

PATHS_TIMEOUT = 150.0
"""For the agent to try every way to a peer, and back."""

CALL_TIMEOUT = 30.0
"""Seconds for a call that is answered at once, each read."""

STATUS_TIMEOUT = 10.0
"""Seconds for an agent to answer at all, before it counts as hanging."""

PAGE = 500
"""Objects asked for at once."""

Event = dict[str, Any]


class AgentClient(CacheCalls):
    """Calls to the agent of one home.

    Each raises what the agent raised, and besides ``AgentNotRunning`` where no agent listens (``AgentEnded`` where the
    last one could not go on), ``AgentUnreachable`` where one does not answer or goes away in the middle,
    ``HomeOfAnother`` where its socket belongs to somebody else.
    """

    def __init__(self, home: Home, *, timeout: float = CALL_TIMEOUT) -> None:
        """``timeout`` bounds each read of a call that is answered at once, in seconds."""
        super().__init__(SocketCalls(home, timeout))
        self.home = home

    def status(self) -> dict[str, Any]:
        """``GET /v1/status``: who the agent is and what it does."""
        return self._calls.answer("GET", "/v1/status")

    def answers(self) -> bool:
        """Whether an agent answers; false where none runs, or one is starting. Raises as ``status`` does otherwise."""
        try:
            self._calls.answer("GET", "/v1/status", timeout=STATUS_TIMEOUT)
        except (AgentNotRunning, AgentStarting):
            return False
        return True

    def process(self) -> int:
        """The agent's pid as this process would name it; 0 where the agent lives in another PID namespace."""
        connection = UnixConnection(socket_of(self.home))
        try:
            connection.connect()
            packed = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            return int(CREDENTIALS.unpack(packed)[0])
        except (OSError, MooncakeError):
            return 0
        finally:
            connection.close()

    def stop(self) -> int:
        """``POST /v1/stop``: ask the agent to end; its pid."""
        return int(self._calls.answer("POST", "/v1/stop", {})["pid"])

    def limits(self, upload: int | None, download: int | None) -> dict[str, Any]:
        """``POST /v1/limits``: change the limits that are given (bytes a second, 0 for none); those that now hold."""
        return self._calls.answer("POST", "/v1/limits", {"upload": upload, "download": download})

    def register(
        self,
        path: str,
        name: str,
        *,
        chunk_size: int | None,
        hash_name: str,
        force: bool,
        tags: Sequence[str] = (),
        selection: Mapping[str, object] = MappingProxyType({}),
    ) -> Iterator[Event]:
        """``POST /v1/register``: hash what is at the absolute ``path`` and serve it as ``name``, and by ``tags``.

        ``selection`` says what is taken of a directory: lists of patterns, ``include`` and ``exclude``, and ``all``.
        """
        how = {"chunk_size": chunk_size, "hash": hash_name, "force": force, **selection}
        body = {"path": path, "name": name, **how, "sight": sight_of_source(path)}
        return self._calls.events(*_tagged("/v1/register", body, tags))

    def register_stream(
        self,
        blocks: Iterator[bytes],
        name: str,
        *,
        chunk_size: int | None,
        hash_name: str,
        force: bool,
        tags: Sequence[str] = (),
    ) -> Iterator[Event]:
        """``POST /v1/register-stream``: have the agent keep what ``blocks`` brings, and serve it as ``name``."""
        how = {"name": name, "hash": hash_name, "chunk_size": chunk_size or "", "force": "1" if force else ""}
        call, _ = _tagged("/v1/register-stream", {}, tags)
        return self._calls.events(f"{call}?{urlencode([*how.items(), *(('tag', tag) for tag in tags)])}", blocks)

    def events(self, call: str, body: Mapping[str, object]) -> Iterator[Event]:
        """What a call that takes long tells, its result last."""
        return self._calls.events(call, body)

    def register_many(
        self,
        items: Sequence[tuple[str, str]],
        *,
        chunk_size: int | None,
        hash_name: str,
        force: bool,
        tags: Sequence[str] = (),
        selection: Mapping[str, object] = MappingProxyType({}),
    ) -> Iterator[Event]:
        """``POST /v1/register-many``: as ``register``, for pairs of an absolute path and a name.

        As many calls as it takes: each is bounded. One result in the end, and progress in objects.
        """
        how = {"chunk_size": chunk_size, "hash": hash_name, "force": force, **selection}
        for path, _ in items:
            check_shared(path)

        def call(batch: list[tuple[str, ...]]) -> Generator[Event, None, None]:
            body = {"items": batch, **how, "sight": sight(*(os.path.dirname(path) for path, _ in batch))}
            return self._calls.events(*_tagged("/v1/register-many", body, tags))

        nothing: Event = {"event": "result", "objects": [], "failed": [], "size": 0, "seconds": 0.0}
        return joined(items, call, nothing)

    def get(
        self,
        name: str,
        dest: str,
        *,
        transport: str = "auto",
        peers: list[str] | None = None,
        seed: bool = True,
        dry_run: bool = False,
        force: bool = False,
        wipe: bool = False,
        update: bool = False,
        tensors: Sequence[str] = (),
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        byte_range: str = "",
    ) -> Iterator[Event]:
        """``POST /v1/get``: bring ``name`` to the absolute path ``dest``, or files with some tensors of it.

        Or some of its files, or a range of one; ``name`` may go on with a path in the object.
        """
        body: dict[str, object] = {
            "name": name,
            "dest": dest,
            "transport": transport,
            "peers": peers or [],
            "seed": seed,
            "dry_run": dry_run,
            "force": force,
            "wipe": wipe,
            "sight": sight_of_destination(dest),
        }
        call = "/v1/get"
        if tensors:
            body["tensors"] = list(tensors)
            call = "/v1/get-tensors"  # an agent of an earlier version would bring the whole object
        if include or exclude or byte_range:
            body.update(include=list(include), exclude=list(exclude), range=byte_range or None)
            call = "/v1/get-chosen"  # likewise
        if update:
            body["update"] = True
            call = "/v1/get-update"  # likewise: it would refuse what is there
        with contextlib.closing(self._calls.events(call, body)) as events:  # not when its last reference goes
            for event in events:
                if event.get("event") == "result":
                    check_result(str(event.get("dest", dest)), event.pop("view", None), event.pop("seen", None))
                yield event

    def begin_job(
        self,
        name: str,
        dest: str,
        *,
        wait: float = 0.0,
        retries: int = 0,
        timeout: float = math.inf,
        byte_range: str = "",
        **how: object,
    ) -> dict[str, Any]:
        """``POST /v1/jobs``: have the agent make a get by itself; the job, as ``job`` has it.

        ``how`` is as in ``get``. It waits and tries again as is said, and takes ``timeout`` seconds at most.
        """
        body = {
            **how,
            "name": name,
            "dest": dest,
            "range": byte_range or None,
            "wait": "for-ever" if math.isinf(wait) else wait,
            "retries": retries,
            "timeout": None if math.isinf(timeout) else timeout,
            "sight": sight_of_destination(dest),
        }
        return self._calls.answer("POST", "/v1/jobs", body)

    def jobs(self) -> list[dict[str, Any]]:
        """``GET /v1/jobs``: the gets in the background that are running, or not forgotten yet."""
        jobs = self._calls.answer("GET", "/v1/jobs")["jobs"]
        return list(jobs) if isinstance(jobs, list) else []

    def job(self, number: int) -> dict[str, Any]:
        """``GET /v1/jobs/ID``: what was asked for, how far it is, its result or its error."""
        return self._calls.answer("GET", f"/v1/jobs/{number}")

    def wait_for_job(self, number: int) -> Iterator[Event]:
        """``POST /v1/jobs/ID/wait``: its events until its end, the result last. Raises its error."""
        try:
            yield from self._calls.events(f"/v1/jobs/{number}/wait", {})
        except AgentGone as error:
            if type(error) is not AgentGone:  # it says why
                raise
            raise JobCut(id=number, home=self.home.root) from None

    def cancel_job(self, number: int) -> dict[str, Any]:
        """``POST /v1/jobs/ID/cancel``: end it, and wait until nothing of it writes any more."""
        return self._calls.answer("POST", f"/v1/jobs/{number}/cancel", {})

    def stream(
        self, name: str, *, transport: str = "auto", peers: Sequence[str] = (), byte_range: str = ""
    ) -> Iterator[Event]:
        """``POST /v1/stream``: a file of an object, in events with ``data``, a view that is good until the next."""
        body = {"name": name, "transport": transport, "peers": list(peers), "range": byte_range or None}
        return self._calls.events("/v1/stream", body)

    def tree(self, path: str, *, listed: bool = False, recursive: bool = False) -> dict[str, Any]:
        """``GET /v1/tree``: what is at a path, of an object's name and a path in it; and what is in there, or below."""
        query = {"path": path, "list": "1" if listed else "", "recursive": "1" if recursive else ""}
        return self._calls.answer("GET", "/v1/tree?" + urlencode(query))

    def read(self, name: str, manifest: str, ranges: Sequence[tuple[int, int, int]]) -> Iterator[Event]:
        """``POST /v1/read``: bytes of an object's files, in events with ``data``, a view that is good until the next.

        ``ranges`` are the numbers of files, with where to begin and to end.
        """
        return self._calls.events(
            "/v1/read", {"name": name, "manifest": manifest, "ranges": [list(each) for each in ranges]}
        )

    def objects(self, prefix: str = "", *, limit: int = PAGE, after: str = "") -> dict[str, Any]:
        """``GET /v1/objects``: one page of the objects whose names begin with ``prefix`` and sort after ``after``."""
        return self._calls.answer("GET", "/v1/objects?" + urlencode({"prefix": prefix, "limit": limit, "after": after}))

    def all_objects(self, prefix: str = "") -> Iterator[dict[str, Any]]:
        """Every object whose name begins with ``prefix``, page after page."""
        after = ""
        while True:
            page = self.objects(prefix, after=after)
            yield from page["objects"]
            if not page.get("next") or page["next"] <= after:
                return
            after = page["next"]

    def check_paths(self, peer: str) -> list[dict[str, Any]]:
        """``GET /v1/paths``: the agent tries each way to a peer, and has it try each way back; a check for each."""
        checks = self._calls.answer("GET", "/v1/paths?" + urlencode({"peer": peer}), timeout=PATHS_TIMEOUT)["checks"]
        return list(checks) if isinstance(checks, list) else []

    def info(self, name: str) -> dict[str, Any]:
        """``GET /v1/info``: one object, its files, and who holds how much."""
        return self._calls.answer("GET", "/v1/info?" + urlencode({"name": name}))

    def unregister(self, name: str) -> dict[str, Any]:
        """``POST /v1/unregister``: withdraw what this node has of ``name``."""
        return self._calls.answer("POST", "/v1/unregister", {"name": name})

    def history(self, name: str) -> dict[str, Any]:
        """``GET /v1/history``: the versions of an object, with their tags and holders."""
        return self._calls.answer("GET", "/v1/history?" + urlencode({"name": name}))

    def superseded(self) -> list[dict[str, Any]] | None:
        """``GET /v1/superseded``: what the node holds of earlier versions; None where nobody can say so now."""
        found = self._calls.answer("GET", "/v1/superseded").get("superseded")
        return found if isinstance(found, list) else None

    def watch(self, name: str, *, initial: bool = False) -> Generator[Event, None, None]:
        """``POST /v1/watch``: an event ``version`` for each new version; it ends when it is closed."""
        return self._calls.events("/v1/watch", {"name": name, "initial": initial})

    def tags(self, name: str) -> dict[str, Any]:
        """``GET /v1/tags``: the tags of an object, or one of them."""
        return self._calls.answer("GET", "/v1/tags?" + urlencode({"name": name}))

    def tag(self, name: str, tags: Sequence[str]) -> dict[str, Any]:
        """``POST /v1/tag``: have tags lead to what ``name`` means."""
        return self._calls.answer("POST", "/v1/tag", {"name": name, "tags": list(tags)})

    def untag(self, name: str) -> dict[str, Any]:
        """``POST /v1/untag``: remove a tag, ``NAME:TAG``."""
        return self._calls.answer("POST", "/v1/untag", {"name": name})

    def verify(self, target: str) -> Iterator[Event]:
        """``POST /v1/verify``: hash again what is held under a name or at an absolute path."""
        seen = {"sight": sight(target)} if os.path.isabs(target) else {}
        return self._calls.events("/v1/verify", {"target": target, **seen})


def _tagged(call: str, body: Mapping[str, object], tags: Sequence[str]) -> tuple[str, Mapping[str, object]]:
    """A register with tags: an agent of an earlier version, which knows none, is to refuse it."""
    return (f"{call}-tagged", {**body, "tags": list(tags)}) if tags else (call, body)


def result_of(events: Iterator[Event]) -> dict[str, Any]:
    """Run a long call to its end without looking at its progress; its result."""
    for event in events:
        if event.get("event") == "result":
            return event
    raise MooncakeError(detail="a call ended without a result")
