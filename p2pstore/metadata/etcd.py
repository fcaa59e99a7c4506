"""The metadata store in etcd v3 (3.4.22 or later, 3.5.6 or later recommended; transactions need 3.3)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from engine.errors import MetadataFull
from engine.etcd import messages as m
from engine.etcd.client import (
    DELETE_RANGE,
    GRANT,
    KEEP_ALIVE,
    RANGE,
    REVOKE,
    STATUS,
    TIME_TO_LIVE,
    TXN,
    EtcdClient,
    EtcdFault,
)
from engine.etcd.credentials import EtcdCredentials
from engine.etcd.faults import FaultKind
from p2pstore.metadata.etcd_convert import from_message, range_request, to_compare, to_operation
from p2pstore.metadata.etcd_watch import watch_prefix
from p2pstore.metadata.rules import check_reads, check_transaction, encode_key
from p2pstore.metadata.store import (
    Condition,
    Delete,
    KeyValue,
    LeaseLost,
    Operation,
    Page,
    ServerInfo,
    WatchEvent,
)

_ALARM = re.compile(r"^.*alarm:")
"""What stands before an alarm's name in an answer: "memberID:2427512273888164524 alarm:NOSPACE "."""

SCAN_PAGE = 1000
"""Keys in one answer; a longer scan is made of several, all at one revision."""
SCAN_RESTARTS = 3
"""How often a scan whose revision was compacted under its hands begins anew."""


class EtcdStore:
    """An etcd cluster; implements ``MetadataStore``. Belongs to the event loop in which it is first used."""

    def __init__(
        self, endpoints: Sequence[str], credentials: EtcdCredentials | None = None, *, tls: bool = False, url: str = ""
    ) -> None:
        """``endpoints`` are those of ``EtcdClient``. Nothing is connected before the first call."""
        self._url = url or f"{'etcds' if tls else 'etcd'}://{','.join(endpoints)}"
        self._client = EtcdClient(endpoints, credentials or EtcdCredentials(), tls=tls, url=self._url)
        self._closed = asyncio.Event()

    @property
    def url(self) -> str:
        """``etcd://HOST:PORT,...``, ``etcds://`` with TLS, or ``etcd+unix://PATH``."""
        return self._url

    async def get(self, key: str) -> KeyValue | None:
        """See ``MetadataStore.get``."""
        answer = await self._client.call(RANGE, m.RangeRequest(key=encode_key(key)), repeatable=True)
        return from_message(answer.kvs[0]) if answer.kvs else None

    async def scan(self, prefix: str, *, limit: int = 0, after: str = "") -> Page:
        """See ``MetadataStore.scan``."""
        restarts = 0
        while True:
            try:
                return await self._scan(prefix, limit, after)
            except EtcdFault as error:
                restarts += 1
                if error.fault is not FaultKind.COMPACTED or restarts > SCAN_RESTARTS:
                    raise self._client.shown(error) from error

    async def _scan(self, prefix: str, limit: int, after: str) -> Page:
        items: list[KeyValue] = []
        revision = 0
        while True:
            size = min(SCAN_PAGE, limit - len(items)) if limit else SCAN_PAGE
            request = range_request(prefix, limit=size, after=after, revision=revision)
            answer = await self._client.call(RANGE, request, repeatable=True)
            items += map(from_message, answer.kvs)
            revision = revision or answer.header.revision
            if not answer.more or len(items) == limit:
                return Page(tuple(items), revision, more=answer.more)
            after = items[-1].key

    async def get_each(self, keys: Sequence[str]) -> list[KeyValue | None]:
        """See ``MetadataStore.get_each``."""
        _, answers = await self._ranges([m.RangeRequest(key=encode_key(key)) for key in keys])
        return [from_message(answer.kvs[0]) if answer.kvs else None for answer in answers]

    async def scan_each(self, prefixes: Sequence[str], *, limit: int) -> list[Page]:
        """See ``MetadataStore.scan_each``."""
        revision, answers = await self._ranges([range_request(prefix, limit=limit) for prefix in prefixes])
        return [Page(tuple(map(from_message, a.kvs)), revision, more=a.more) for a in answers]

    async def _ranges(self, requests: Sequence[Any]) -> tuple[int, list[Any]]:
        """A transaction that only reads, which makes no revision; the one at which it read, and the answers."""
        if not requests:
            return 0, []
        check_reads(requests)
        request = m.TxnRequest(success=[m.RequestOp(request_range=wanted) for wanted in requests])
        try:
            answer = await self._client.call(TXN, request, repeatable=True)
        except MetadataFull:  # etcd 3.5.0 and 3.5.1 count a transaction as a write before they look into it
            return await self._ranges_one_by_one(requests)
        return int(answer.header.revision), [response.response_range for response in answer.responses]

    async def _ranges_one_by_one(self, requests: Sequence[Any]) -> tuple[int, list[Any]]:
        """As ``_ranges``, in a call each, at one revision."""
        restarts = 0
        while True:
            revision = 0
            answers: list[Any] = []
            try:
                for request in requests:
                    request.revision = revision
                    answers.append(await self._client.call(RANGE, request, repeatable=True))
                    revision = revision or int(answers[0].header.revision)
            except EtcdFault as error:
                restarts += 1
                if error.fault is not FaultKind.COMPACTED or restarts > SCAN_RESTARTS:
                    raise self._client.shown(error) from error
            else:
                return revision, answers

    async def commit(self, operations: Sequence[Operation], conditions: Sequence[Condition] = ()) -> int | None:
        """See ``MetadataStore.commit``. After ``MetadataUnavailable`` it may have taken effect."""
        check_transaction(operations, conditions)
        request = m.TxnRequest(compare=map(to_compare, conditions), success=map(to_operation, operations))
        try:
            answer = await self._client.call(TXN, request, repeatable=False)
        except EtcdFault as error:
            if error.fault is FaultKind.NO_LEASE:
                raise LeaseLost from error
            raise self._client.shown(error) from error
        except MetadataFull:
            # A full etcd still deletes; the releases that refuse it in a transaction take it alone. With conditions it
            # cannot be done so, for they must hold at the same moment.
            if conditions or not all(isinstance(operation, Delete) for operation in operations):
                raise
            return await self._delete_one_by_one(operations)
        return int(answer.header.revision) if answer.succeeded else None

    async def _delete_one_by_one(self, operations: Sequence[Operation]) -> int:
        revision = 0
        for operation in operations:
            request = m.DeleteRangeRequest(key=encode_key(operation.key))
            answer = await self._client.call(DELETE_RANGE, request, repeatable=True)
            revision = int(answer.header.revision)
        return revision

    async def grant(self, ttl: int) -> int:
        """See ``MetadataStore.grant``. etcd raises a TTL of less than about 2 s to that."""
        # A lease granted twice costs nothing: the one that nobody knows runs out.
        answer = await self._client.call(GRANT, m.LeaseGrantRequest(TTL=ttl), repeatable=True)
        return int(answer.ID)

    async def _ttl(self, call: Any, request: Any) -> int:
        try:
            answer = await self._client.call(call, request, repeatable=True)
        except EtcdFault as error:
            if error.fault is FaultKind.NO_LEASE:
                return 0
            raise self._client.shown(error) from error
        return int(answer.TTL)

    async def keep_alive(self, lease: int) -> int:
        """See ``MetadataStore.keep_alive``."""
        return max(0, await self._ttl(KEEP_ALIVE, m.LeaseKeepAliveRequest(ID=lease)))

    async def time_left(self, lease: int) -> int:
        """See ``MetadataStore.time_left``."""
        # etcd says -1 of a lease that is gone, and 0 of one that is in its last second.
        left = await self._ttl(TIME_TO_LIVE, m.LeaseTimeToLiveRequest(ID=lease))
        return 0 if left < 0 else max(1, left)

    async def revoke(self, lease: int) -> None:
        """See ``MetadataStore.revoke``."""
        try:
            await self._client.call(REVOKE, m.LeaseRevokeRequest(ID=lease), repeatable=True)
        except EtcdFault as error:
            if error.fault is not FaultKind.NO_LEASE:
                raise self._client.shown(error) from error

    async def watch(self, prefix: str) -> AsyncIterator[WatchEvent]:
        """See ``MetadataStore.watch``.

        Raises ``MetadataRefused`` before the first event only; later refusals are logged and tried again.
        """
        async with aclosing(watch_prefix(self._client, self.scan, prefix, self._closed)) as events:
            async for event in events:
                yield event

    async def check(self) -> ServerInfo:
        """See ``MetadataStore.check``. Proves, too, that the cluster has a quorum and lets us read."""
        began = time.monotonic()
        answer = await self._client.call(STATUS, m.StatusRequest(), repeatable=True)
        endpoint = self._client.endpoint
        await self.get("mooncake/p2p/v1/")
        return ServerInfo(
            endpoint=endpoint,
            version=answer.version,
            seconds=time.monotonic() - began,
            alarms=tuple(sorted({_ALARM.sub("", text).strip() for text in answer.errors})),
            size=int(answer.dbSize),
        )

    async def close(self) -> None:
        """See ``MetadataStore.close``."""
        self._closed.set()
        await self._client.close()
