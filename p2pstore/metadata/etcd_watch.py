"""A watch on an etcd prefix that never ends silently.

A stream can end in many ways: the server dies, with or without a word; the revision to resume from was compacted; the
store was wiped; our token ran out. Each leads to another stream, resumed by revision where the history is known to be
the same one, else after a ``Snapshot``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc.aio

from engine.etcd import messages as m
from engine.etcd.client import RANGE, WATCH, EtcdClient, EtcdFault, fault_of
from engine.etcd.faults import FaultKind
from engine.net.backoff import EVENLY, Backoff
from engine.net.within import within
from p2pstore.errors import MetadataRefused, MetadataUnavailable
from p2pstore.metadata.etcd_convert import from_event, watch_request
from p2pstore.metadata.rules import encode_key
from p2pstore.metadata.store import Page, Snapshot, WatchEvent

log = logging.getLogger(__name__)

QUIET_LIMIT = 5.0
"""Seconds without a word after which the server is asked for its progress."""
PROGRESS_TIMEOUT = 5.0
"""Seconds that it has to answer; then the stream is taken for dead."""
BACKOFF = Backoff(0.1, 2.0, EVENLY)
"""Pauses between attempts while no server answers."""


@dataclass
class _History:
    """How far we have seen which history of the store."""

    cluster: int = 0
    term: int = 0
    revision: int = 0

    def continues_in(self, header: Any) -> bool:
        """Whether the server's header can belong to the history that we know.

        A store that was wiped begins again at revision 1; that of another cluster has another id; and a member that
        lost its data begins again at a low Raft term, however many writes followed.
        """
        same_cluster: bool = header.cluster_id == self.cluster
        return same_cluster and header.raft_term >= self.term and header.revision >= self.revision


class _Lost(Exception):
    """The stream is of no more use."""


class _Stale(Exception):
    """There is nothing to resume from."""


Scan = Callable[[str], Awaitable[Page]]


async def watch_prefix(
    client: EtcdClient, scan: Scan, prefix: str, closed: asyncio.Event
) -> AsyncGenerator[WatchEvent, None]:
    """The events of ``MetadataStore.watch``; ends when ``closed`` is set."""
    history = _History()
    failures = 0
    resync = True
    while not closed.is_set():
        began = time.monotonic()
        try:
            if resync:
                header = await _header(client, prefix)
                page = await scan(prefix)
                history = _History(header.cluster_id, header.raft_term, page.revision)
                resync = False
                yield Snapshot(page.items, page.revision)
            async with aclosing(_stream(client, prefix, history, closed)) as events:
                async for event in events:
                    yield event
        except (MetadataUnavailable, MetadataRefused, _Stale, _Lost) as error:
            if isinstance(error, MetadataRefused) and history.revision == 0:
                raise
            resync = resync or isinstance(error, _Stale)
            failures = 0 if time.monotonic() - began > QUIET_LIMIT else failures + 1
            if not closed.is_set():
                level = logging.DEBUG if failures > 1 else logging.WARNING
                log.log(level, "watch on %r broke: %s; resuming", prefix, error)
                await _pause(failures, closed)


async def _pause(failures: int, closed: asyncio.Event) -> None:
    try:
        await within(closed.wait(), BACKOFF.after(failures + 1))
    except asyncio.TimeoutError:
        return


async def _header(client: EtcdClient, prefix: str) -> Any:
    """The header of a linearizable read, which costs no keys."""
    request = m.RangeRequest(key=encode_key(prefix) or b"\0", count_only=True)
    return (await client.call(RANGE, request, repeatable=True)).header


async def _check_history(client: EtcdClient, prefix: str, history: _History, header: Any) -> None:
    """Raises ``_Stale`` where the server that answered our request to resume knows another history than we."""
    # A member that lags behind has seen less than we, and will catch up: the cluster as a whole has not.
    if not history.continues_in(header) and not history.continues_in(await _header(client, prefix)):
        raise _Stale("the store began anew")
    history.cluster, history.term = header.cluster_id, header.raft_term


async def _stream(
    client: EtcdClient, prefix: str, history: _History, closed: asyncio.Event
) -> AsyncGenerator[WatchEvent, None]:
    """The events after ``history.revision`` from one stream; raises ``_Lost`` or ``_Stale``, or ends when closed."""
    endpoint = client.endpoint
    call = None
    try:
        call = await client.open_stream(endpoint, WATCH)
        await _write(call, watch_request(prefix, history.revision + 1), closed)
        while (answer := await _read(call, closed)) is not None:
            if answer.compact_revision:
                raise _Stale("the history to resume from was compacted")
            if answer.created:
                await _check_history(client, prefix, history, answer.header)
            if answer.canceled:
                client.forget_token()
                raise _Lost(answer.cancel_reason or "the server cancelled it")
            for event in answer.events:
                yield from_event(event)
            if answer.events:
                history.revision = answer.events[-1].kv.mod_revision
    except (EtcdFault, grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
        raise _lost(client, endpoint, error) from error
    finally:
        if call is not None:
            call.cancel()


def _lost(client: EtcdClient, endpoint: str, error: Exception) -> _Lost:
    """What the next stream needs: a fresh token, or another endpoint."""
    fault = fault_of(error) if isinstance(error, grpc.aio.AioRpcError) else error
    if isinstance(fault, EtcdFault) and fault.fault is FaultKind.TOKEN:
        client.forget_token()
    else:
        client.fail_over(endpoint)
    return _Lost(str(fault))


async def _until_closed(work: asyncio.Future[Any], closed: asyncio.Event, timeout: float) -> bool:
    """Wait for ``work``, but no longer than ``timeout`` seconds or until closed; whether it is done."""
    closing = asyncio.ensure_future(closed.wait())
    try:
        await asyncio.wait({work, closing}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return work.done() and not closing.done()
    finally:
        closing.cancel()


async def _drop(work: asyncio.Future[Any]) -> None:
    """End a call that is done, and was looked at, or whose result nobody wants any more."""
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def _write(call: Any, request: Any, closed: asyncio.Event) -> None:
    writing = asyncio.ensure_future(call.write(request))
    try:
        if await _until_closed(writing, closed, PROGRESS_TIMEOUT):
            _result(writing)
        elif not closed.is_set():
            raise EtcdFault(FaultKind.UNKNOWN, f"nothing could be sent for {PROGRESS_TIMEOUT:g} s")
    finally:
        await _drop(writing)


async def _read(call: Any, closed: asyncio.Event) -> Any:
    """The next answer, or None when closed. A quiet stream is asked for its progress; a dead one raises.

    The read is never cancelled while the stream is wanted: gRPC would cancel the stream with it.
    """
    reading = asyncio.ensure_future(call.read())
    try:
        if await _until_closed(reading, closed, QUIET_LIMIT):
            return _result(reading)
        if not closed.is_set():
            await _write(call, m.WatchRequest(progress_request=m.WatchProgressRequest()), closed)
            if await _until_closed(reading, closed, PROGRESS_TIMEOUT):
                return _result(reading)
        if closed.is_set():
            return None
        raise EtcdFault(FaultKind.UNKNOWN, f"no sign of life for {QUIET_LIMIT + PROGRESS_TIMEOUT:g} s")
    finally:
        await _drop(reading)


def _result(work: asyncio.Future[Any]) -> Any:
    """What ``work`` brought; a stream that ended, or that gRPC cancelled under our hands, raises ``EtcdFault``."""
    if work.cancelled() or work.result() is grpc.aio.EOF:
        raise EtcdFault(FaultKind.UNKNOWN, "the stream ended")
    return work.result()
