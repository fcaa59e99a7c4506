"""``etcd://A:2379,B:2379``: segments in etcd, through the client that the store uses too."""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from engine.errors import MetadataRefused, MetadataUnavailable
from engine.etcd import messages as m
from engine.etcd.client import CALL_TIMEOUT, RANGE, TXN, EtcdClient, EtcdFault
from engine.etcd.credentials import EtcdCredentials
from engine.metadata.base import KeyValueStore
from engine.net.loop_thread import LoopThread

CLOSE_TIMEOUT = 2.0
"""Seconds for the thread to end."""

_MARGIN = 5.0
"""Seconds beyond the client's own patience."""

T = TypeVar("T")


class EtcdValues(KeyValueStore):
    """Values in etcd. The client lives on an event loop in a thread of its own. Raises ``UsageError`` as that does."""

    def __init__(
        self, endpoints: Sequence[str], credentials: EtcdCredentials | None = None, *, tls: bool, url: str
    ) -> None:
        """``endpoints`` are ``host:port``. Raises ``UsageError`` where there are none."""
        self.url = url
        self._closed = False
        self._loop = LoopThread("etcd")
        self._loop.start()
        try:
            self._client = self._call(_made(endpoints, credentials or EtcdCredentials(), tls=tls, url=url))
        except BaseException:
            self._end()
            raise

    def get(self, key: str) -> bytes | None:
        """See ``KeyValueStore.get``."""
        answer = self._call(self._client.call(RANGE, m.RangeRequest(key=key.encode()), repeatable=True))
        return bytes(answer.kvs[0].value) if answer.kvs else None

    def put(self, key: str, value: bytes) -> None:
        """See ``KeyValueStore.put``."""
        self._commit(m.RequestOp(request_put=m.PutRequest(key=key.encode(), value=value)))

    def delete(self, key: str) -> None:
        """See ``KeyValueStore.delete``."""
        self._commit(m.RequestOp(request_delete_range=m.DeleteRangeRequest(key=key.encode())))

    def close(self) -> None:
        """See ``KeyValueStore.close``."""
        if self._closed:
            return
        with contextlib.suppress(MetadataUnavailable):
            self._call(self._client.close())
        self._end()

    def _end(self) -> None:
        self._closed = True
        self._loop.stop(CLOSE_TIMEOUT)

    def _commit(self, operation: Any) -> None:
        # Plain puts and deletes may be made twice: the second has the first one's effect.
        self._call(self._client.call(TXN, m.TxnRequest(success=[operation]), repeatable=True))

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            work.close()
            raise MetadataUnavailable(url=self.url, detail="this handle is closed")
        try:
            return self._loop.call(work, CALL_TIMEOUT + _MARGIN)
        except EtcdFault as error:
            raise MetadataRefused(url=self.url, detail=error.detail) from None
        except TimeoutError:
            raise MetadataUnavailable(url=self.url, detail=f"no answer in {CALL_TIMEOUT + _MARGIN:g} s") from None


async def _made(endpoints: Sequence[str], credentials: EtcdCredentials, *, tls: bool, url: str) -> EtcdClient:
    return EtcdClient(endpoints, credentials, tls=tls, url=url)
