"""The pooled store for coroutines: every call of ``Store``, awaited.

::

    async with AsyncStore("10.0.0.1:50051", hostname="10.0.0.7") as store:
        await store.put("block-17", array)
        await store.get("block-17")

The calls are made by a few threads, for what they wait for are sockets and copies that block. So many may be under way
at once, and the event loop is never held up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from engine import arguments, forks
from engine.errors import Closed
from engine.net.daemon_pool import DaemonPool
from engine.net.threads import Failure
from engine.rpc.messages import Replicas
from p2pstore.kv.client.replicas import Failed
from p2pstore.kv.client.store import Store

if TYPE_CHECKING:
    from typing_extensions import Buffer as Exporter
    from typing_extensions import Self

WHAT = "this AsyncStore"
"""What errors call it."""

CALLS = 16
"""Calls that are under way at once; more wait their turn."""

T = TypeVar("T")


class AsyncStore:
    """A client of the pool for one event loop. What is said of ``Store``'s arguments and errors holds here.

    It joins the pool when it is entered, or by ``join``. A call that is cancelled goes on in its thread until it has
    ended, and is waited for: it may be reading or writing the caller's memory.
    """

    def __init__(self, master: str, **options: Any) -> None:
        """As ``Store``; nothing is connected yet."""
        arguments.text(master, "the master's address")
        self._make = partial(Store, master, **options)
        self._origin = forks.Origin(WHAT)
        self._store: Store | None = None
        self._pool = DaemonPool("store-call", CALLS)
        # One thread, so that one joins or leaves after the other, and none of them behind calls that wait.
        self._life = DaemonPool("store-life", 1)

    async def __aenter__(self) -> Self:
        await self.join()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __reduce__(self) -> NoReturn:
        forks.refuse_to_be_sent(WHAT)

    async def join(self) -> None:
        """Join the pool. Raises as ``Store``. Where it is cancelled, the pool is left again."""
        self._origin.check()
        made: list[Store] = []

        def join() -> None:
            if self._store is None:
                self._store = self._make()
                made.append(self._store)

        try:
            await self._run(self._life, join)
        except asyncio.CancelledError:
            for store in made:
                self._store = None
                await self._run(self._life, store.close)
            raise

    async def close(self) -> None:
        """Leave the pool; twice is harmless. In a forked child it does nothing."""
        if self._origin.elsewhere:
            return
        await self._run(self._life, self._leave)

    # Values

    async def put(self, key: str, value: Exporter, *, replace: bool = False, **how: Any) -> bool:
        """See ``Store.put``."""
        return await self._call(lambda store: store.put(key, value, replace=replace, **how))

    async def put_parts(self, key: str, parts: Sequence[Exporter], *, replace: bool = False, **how: Any) -> bool:
        """See ``Store.put_parts``."""
        return await self._call(lambda store: store.put_parts(key, parts, replace=replace, **how))

    async def put_many(
        self, values: Mapping[str, Exporter] | Iterable[tuple[str, Exporter]], *, replace: bool = False, **how: Any
    ) -> list[bool]:
        """See ``Store.put_many``."""
        return await self._call(lambda store: store.put_many(values, replace=replace, **how))

    async def get(self, key: str) -> bytes:
        """See ``Store.get``."""
        return await self._call(lambda store: store.get(key))

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """See ``Store.get_many``."""
        return await self._call(lambda store: store.get_many(keys))

    async def get_into(self, key: str, memory: Exporter) -> int:
        """See ``Store.get_into``."""
        return await self._call(lambda store: store.get_into(key, memory))

    async def get_many_into(self, targets: Mapping[str, Exporter]) -> list[int]:
        """See ``Store.get_many_into``."""
        return await self._call(lambda store: store.get_many_into(targets))

    async def get_range(self, key: str, offset: int, length: int, *, checked: bool = False) -> bytes:
        """See ``Store.get_range``."""
        return await self._call(lambda store: store.get_range(key, offset, length, checked=checked))

    async def put_tensor(self, key: str, tensor: Any, **how: Any) -> bool:
        """See ``Store.put_tensor``."""
        return await self._call(lambda store: store.put_tensor(key, tensor, **how))

    async def get_array(self, key: str) -> Any:
        """See ``Store.get_array``."""
        return await self._call(lambda store: store.get_array(key))

    async def get_tensor(self, key: str) -> Any:
        """See ``Store.get_tensor``."""
        return await self._call(lambda store: store.get_tensor(key))

    # Keys

    async def exists(self, key: str) -> bool:
        """See ``Store.exists``."""
        return await self._call(lambda store: store.exists(key))

    async def exists_many(self, keys: Sequence[str]) -> list[bool]:
        """See ``Store.exists_many``."""
        return await self._call(lambda store: store.exists_many(keys))

    async def size(self, key: str) -> int:
        """See ``Store.size``."""
        return await self._call(lambda store: store.size(key))

    async def replicas(self, key: str) -> Replicas:
        """See ``Store.replicas``."""
        return await self._call(lambda store: store.replicas(key))

    async def remove(self, key: str, *, force: bool = False) -> None:
        """See ``Store.remove``."""
        await self._call(lambda store: store.remove(key, force=force))

    async def remove_matching(self, pattern: str, *, force: bool = False) -> int:
        """See ``Store.remove_matching``."""
        return await self._call(lambda store: store.remove_matching(pattern, force=force))

    async def remove_all(self, *, force: bool = False) -> int:
        """See ``Store.remove_all``."""
        return await self._call(lambda store: store.remove_all(force=force))

    # The client

    @property
    def name(self) -> str:
        """See ``Store.name``."""
        return self._joined().name

    @property
    def why_not(self) -> str:
        """See ``Store.why_not``."""
        return self._joined().why_not

    @property
    def dead(self) -> dict[str, Failed]:
        """See ``Store.dead``."""
        return self._joined().dead

    @property
    def failures(self) -> tuple[Failure, ...]:
        """See ``Store.failures``."""
        return self._joined().failures

    # Inside

    def _leave(self) -> None:
        if self._store is None:
            return
        try:
            self._store.close()
        finally:
            self._pool.shutdown(wait=False)

    def _joined(self) -> Store:
        if self._store is None:
            raise Closed(what="this AsyncStore, which has not joined its pool yet,")
        return self._store

    async def _call(self, work: Callable[[Store], T]) -> T:
        store = self._joined()
        store.check()  # raises after the end, and in a forked child, whose threads are not there
        return await self._run(self._pool, lambda: work(store))

    @staticmethod
    async def _run(pool: DaemonPool, work: Callable[[], T]) -> T:
        """Have a thread do it. Where the caller is cancelled, its memory is its own again when this returns."""
        doing = asyncio.wrap_future(pool.submit(work))
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            while not doing.done():
                with contextlib.suppress(asyncio.CancelledError):  # again: it takes as long as the call is bounded
                    await asyncio.wait([doing])
            raise
