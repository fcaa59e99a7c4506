"""LMCache's remote storage on the pooled store: a plug-in for ``remote_storage_plugins``.

::

    remote_storage_plugins: ["mooncake"]
    extra_config:
      remote_storage_plugin.mooncake.module_path: p2pstore.integrations.lmcache
      remote_storage_plugin.mooncake.class_name: MooncakeAdapter
      mooncake_master_server_address: 10.0.0.1:50051
      mooncake_cache_prefix: ...

Keys and values are those of LMCache's own connector for the store, so that both find what the other put, but for the
prefix. What is not so: a store that is slow, gone or wrong has nothing; a code is never taken for "there"; behind the
first chunk that is missing nothing is returned; memory that a late put reads is not given back before it was read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from lmcache.v1.protocol import RemoteMetadata
from lmcache.v1.storage_backend.connector import ConnectorAdapter, extract_plugin_type
from lmcache.v1.storage_backend.connector.base_connector import RemoteConnector

from engine.memory.copying import address_of, copy, view_of
from engine.net.daemon_pool import DaemonPool
from p2pstore.errors import MooncakeError
from p2pstore.integrations.patient_store import FLOOR, PatientStore
from p2pstore.integrations.plugin_settings import CACHE_PREFIX, namespace, settings
from p2pstore.integrations.staging import runs
from p2pstore.kv.client.compat_types import BufferHandle

PLUGIN = "mooncake"
"""The plug-in's name; ``mooncake.NAME`` is one of several."""

PREFIX = "mooncake_"
"""With which the store's settings begin in ``extra_config``."""

THREADS = 16
"""Calls that LMCache has under way."""

WHOLE = 4
TOKENS = 2
"""Dimensions of a chunk with all layers, and the one that counts its tokens."""

GONE = 1
"""What a ping says of a store that cannot be used; LMCache counts anything but 0 as a failure."""

T = TypeVar("T")

Chunks = list[Any]
"""LMCache's memory objects, None for those that are missing."""

NOTHING: Sequence[Any] = ()
"""No chunks."""

log = logging.getLogger(__name__)


class Values(PatientStore):
    """The store, with values as they were put."""

    def values(self, keys: Sequence[str], size: int) -> list[BufferHandle | None]:
        """The values, of some ``size`` bytes each; None for what is not there, or not in time."""
        work = partial(super().batch_get_buffer, keys)
        found = self._loads.call(work, self.seconds + len(keys) * size / FLOOR)
        return [None] * len(keys) if found is None else found


class MooncakeConnector(RemoteConnector):  # type: ignore[misc] # LMCache has no types here
    """A connection of LMCache's to the pool; LMCache calls it from threads and from its event loop."""

    def __init__(self, loop: Any, local_cpu_backend: Any, config: Any, metadata: Any = None) -> None:
        """Raises ``RuntimeError`` where the store does not take this process, and ``ValueError``, ``BadConfig``.

        A store that is not there is looked for in the background.
        """
        if config.remote_serde not in {None, "naive"}:
            raise ValueError(f"remote_serde is {config.remote_serde!r}, and the pooled store takes chunks as they are")
        metadata = metadata if metadata is not None else local_cpu_backend.metadata
        super().__init__(config, metadata)
        extra = {name.removeprefix(PREFIX): value for name, value in (config.extra_config or {}).items()}
        said = settings(extra)
        begins = namespace(str(said.pop(CACHE_PREFIX, "")), str(metadata.model_name))
        self._begins = f"{begins}@" if begins else ""
        self._local = local_cpu_backend
        self._loop = loop
        self._pool = DaemonPool("lmcache", THREADS)
        self._store = Values()
        if self._store.setup(said):
            raise RuntimeError(f"the pooled store was not joined: {self._store.last_error}")

    # Lookups

    async def exists(self, key: Any) -> bool:
        """See ``RemoteConnector``."""
        return await self._call(partial(self._present, [key]), 0) == 1

    def exists_sync(self, key: Any) -> bool:
        """See ``RemoteConnector``."""
        return self._quietly(partial(self._present, [key]), 0) == 1

    def support_batched_contains(self) -> bool:
        """See ``RemoteConnector``."""
        return True

    def batched_contains(self, keys: Sequence[Any]) -> int:
        """How many of the keys are there, from the first on: one call to the master for all."""
        return self._quietly(partial(self._present, keys), 0)

    async def batched_async_contains(self, lookup_id: str, keys: Sequence[Any], pin: bool = False) -> int:  # noqa: ARG002, FBT001 - LMCache's
        """The same for its event loop."""
        return await self._call(partial(self._present, keys), 0)

    # Chunks

    async def get(self, key: Any) -> Any:
        """See ``RemoteConnector``."""
        return (await self.batched_get([key]))[0]

    def support_batched_get(self) -> bool:
        """See ``RemoteConnector``."""
        return True

    async def batched_get(self, keys: Sequence[Any]) -> Chunks:
        """The chunks up to the first that is missing; None for it and for all behind it: a prefix is what is of use."""
        chunks = await self._call(partial(self._get, keys), NOTHING, _let_go)
        return list(chunks) + [None] * (len(keys) - len(chunks))

    async def batched_get_non_blocking(self, lookup_id: str, keys: Sequence[Any]) -> Chunks:  # noqa: ARG002 - LMCache's
        """The chunks up to the first that is missing."""
        return list(await self._call(partial(self._get, keys), NOTHING, _let_go))

    async def put(self, key: Any, memory_obj: Any) -> None:
        """See ``RemoteConnector``."""
        await self.batched_put([key], [memory_obj])

    def support_batched_put(self) -> bool:
        """See ``RemoteConnector``."""
        return True

    async def batched_put(self, keys: Sequence[Any], memory_objs: Sequence[Any]) -> None:
        """Put chunks. It ends when their memory is not needed any more, also where it is cancelled."""
        await self._call(partial(self._put, keys, memory_objs), None)

    # The rest

    async def list(self) -> list[str]:
        """No keys: the pool is others', too, and LMCache never asks."""
        return []

    def remove_sync(self, key: Any) -> bool:
        """Remove a chunk, whoever reads it; whether it was there."""
        return self._quietly(lambda: self._store.remove(self._key(key), True), -1) == 0

    def support_ping(self) -> bool:
        """See ``RemoteConnector``."""
        return True

    async def ping(self) -> int:
        """0 while the store can be used: it is known without asking."""
        return GONE if self._store.health_check() else 0

    async def close(self) -> None:
        """Leave the pool."""
        await self._call(self._store.close, 0)
        self._pool.shutdown()

    # Inside

    def _key(self, key: Any) -> str:
        return f"{self._begins}{key.to_string()}"

    def _present(self, keys: Sequence[Any]) -> int:
        codes = self._store.batch_is_exist([self._key(key) for key in keys])
        return next((place for place, code in enumerate(codes) if code != 1), len(codes))

    def _get(self, keys: Sequence[Any]) -> Sequence[Any]:
        size = self.full_chunk_size_bytes + self.remote_metadata_bytes
        names = [self._key(key) for key in keys]
        chunks: Chunks = []
        for places in runs([size] * len(keys)):  # values that wait to be copied take memory, too
            some = names[places.start : places.stop]
            for name, value in zip(some, self._store.values(some, size), strict=True):
                chunk = None if value is None else self._quietly(partial(self._chunk, name, memoryview(value)), None)
                if chunk is None:
                    return chunks
                chunks.append(chunk)
        return chunks

    def _chunk(self, name: str, data: memoryview) -> Any:
        """A value as LMCache's memory; None where it is no chunk of this engine's, or there is no memory."""
        shapes, dtypes, layout = self.meta_shapes, self.meta_dtypes, self.meta_fmt
        if self.save_chunk_meta:
            if len(data) <= self.remote_metadata_bytes:
                return _not_ours(name, "it has no chunk")
            told = RemoteMetadata.deserialize(data[: self.remote_metadata_bytes])
            data = data[self.remote_metadata_bytes :]
            if not self._fits(told, len(data)):
                return _not_ours(name, f"it is {told}")
            shapes, layout = told.shapes, told.fmt
        if len(data) > self.full_chunk_size_bytes or len(data) % self.single_token_size:
            return _not_ours(name, f"it has {len(data)} bytes, and a chunk {self.full_chunk_size_bytes}")
        chunk = self._local.allocate(shapes, dtypes, layout, busy_loop=False)
        if chunk is None:
            return None
        try:
            if len(data) != chunk.get_size():
                chunk = self.reshape_partial_chunk(chunk, len(data))
            copy(view_of(chunk.data_ptr, len(data)), data)
        except BaseException:
            chunk.ref_count_down()
            raise
        return chunk

    def _fits(self, told: Any, size: int) -> bool:
        """Whether what a value says of itself is so, and is like what this engine has, but for its tokens."""
        if told.length != size or list(told.dtypes) != list(self.meta_dtypes):
            return False
        if sum(shape.numel() * dtype.itemsize for shape, dtype in zip(told.shapes, told.dtypes, strict=True)) != size:
            return False
        pairs = zip(told.shapes, self.meta_shapes, strict=True)
        return all(len(one) != WHOLE or _but_tokens(one) == _but_tokens(other) for one, other in pairs)

    def _put(self, keys: Sequence[Any], chunks: Sequence[Any]) -> None:
        names = [self._key(key) for key in keys]
        heads = [memoryview(self._head(chunk)) for chunk in chunks] if self.save_chunk_meta else []
        bodies = [chunk.byte_array for chunk in chunks]
        parts = [[*pair] for pair in (zip(heads, bodies, strict=True) if heads else zip(bodies, strict=True))]
        pointers = [[address_of(part) for part in each] for each in parts]
        codes = self._store.batch_put_from_multi_buffers(names, pointers, [[part.nbytes for part in e] for e in parts])
        if failed := [code for code in codes if code]:
            log.info("%d of %d chunks were not put: %s", len(failed), len(keys), self._store.last_error or failed[0])

    def _head(self, chunk: Any) -> bytes:
        told = RemoteMetadata(chunk.get_size(), chunk.get_shapes(), chunk.get_dtypes(), chunk.get_memory_format())
        return bytes(told.serialize())

    def _quietly(self, work: Callable[[], T], otherwise: T) -> T:
        """What work returns: an error of any kind is logged, and is no more than nothing found."""
        try:
            return work()
        except MooncakeError as error:
            log.warning("the pooled store: %s", error)
        except Exception:
            log.exception("the pooled store: this was not foreseen, and counts as nothing found")
        return otherwise

    async def _call(self, work: Callable[[], T], otherwise: T, unused: Callable[[T], None] | None = None) -> T:
        """The same in a thread. Where the caller is cancelled this ends with the work, whose result is ``unused``."""
        try:
            future = self._pool.submit(self._quietly, work, otherwise)
        except (RuntimeError, MooncakeError) as error:  # it was closed, or the system refuses a thread
            log.warning("the pooled store: %s", error)
            return otherwise
        doing: asyncio.Future[T] = asyncio.wrap_future(future)
        cancelled: asyncio.CancelledError | None = None
        while not doing.done():
            try:
                await asyncio.wait([doing])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            if unused is not None:
                unused(doing.result())
            raise cancelled
        return doing.result()


class MooncakeAdapter(ConnectorAdapter):  # type: ignore[misc] # LMCache has no types here
    """What LMCache asks for a connection: of the plug-in that is called ``mooncake``, or ``mooncake.NAME``."""

    def __init__(self) -> None:
        super().__init__(f"plugin://{PLUGIN}")

    def can_parse(self, url: str) -> bool:
        """See ``ConnectorAdapter``."""
        scheme, _, name = url.partition("://")
        return scheme == "plugin" and extract_plugin_type(name) == PLUGIN

    def create_connector(self, context: Any) -> MooncakeConnector:
        """See ``ConnectorAdapter``."""
        return MooncakeConnector(context.loop, context.local_cpu_backend, context.config, context.metadata)


def _let_go(chunks: Iterable[Any]) -> None:
    for chunk in chunks:
        chunk.ref_count_down()


def _but_tokens(shape: Any) -> list[int]:
    return [size for place, size in enumerate(shape) if place != TOKENS]


def _not_ours(name: str, detail: str) -> None:
    log.warning("the value of %s is no chunk of this engine's: %s", name, detail)
