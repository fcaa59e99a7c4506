"""The pooled store in a Python program: immutable values by key, in memory that many processes give.

::

    with Store("10.0.0.1:50051", hostname="10.0.0.7", segment_size=4 << 30) as store:
        store.put("block-17", array)                # anything that is memory: bytes, NumPy, tensors
        store.get("block-17")                       # bytes
        store.get_into("block-17", other)           # into memory, without another copy

Every method blocks until it is done and may be called from any thread. A value is checked against the checksum that was
put with it; where one replica is wrong or its node is gone, the next one is read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from engine import arguments, forks
from engine.errors import Closed, MooncakeError
from engine.memory.copying import unfilled
from engine.memory.lent import byte_view
from engine.metadata.handshake import URL as P2PHANDSHAKE
from engine.net.threads import Failure
from engine.rpc.codes import Code
from engine.rpc.messages import DEFAULT_TENANT, Replicas, ReplicateConfig
from p2pstore.errors import UsageError
from p2pstore.kv.client.client import Client
from p2pstore.kv.client.options import DEFAULT_SEGMENT, DISK_LIMIT, SETUP_SECONDS, StoreOptions
from p2pstore.kv.client.reading import Part, no_value, refused, whole
from p2pstore.kv.client.replicas import Failed
from p2pstore.kv.client.replication import replication
from p2pstore.kv.client.tensor_calls import TensorCalls
from p2pstore.kv.client.writing import Item, Outcome
from p2pstore.kv.errors import KeyBusy, KeyNotFound

if TYPE_CHECKING:
    from typing_extensions import Buffer as Exporter
    from typing_extensions import Self

WHAT = "this Store"
"""What errors call it."""

T = TypeVar("T")


class Store(TensorCalls):
    """A client of the pool. Thread-safe; it serves the memory that it gave until ``close``.

    Raises ``MasterUnavailable`` where no master answers at ``master`` within ``setup_timeout`` seconds, and
    ``MasterRefused`` where it does not take the memory. While the master is gone calls raise ``MasterUnavailable`` at
    once; they work again, with the memory mounted again, once it is back.
    """

    def __init__(
        self,
        master: str,
        *,
        hostname: str = "127.0.0.1",
        segment_size: int = DEFAULT_SEGMENT,
        metadata: str = P2PHANDSHAKE,
        protocol: str = "tcp",
        devices: str = "",
        bind: str | None = None,
        tenant: str = DEFAULT_TENANT,
        checksum: str = "xxh3",
        neighbours: bool = True,
        disk: str | os.PathLike[str] | None = None,
        disk_limit: int = DISK_LIMIT,
        setup_timeout: float = SETUP_SECONDS,
    ) -> None:
        """Join the pool of the master at ``master`` (``host:port``), and give it ``segment_size`` bytes; 0 gives none.

        ``hostname`` is the address at which others reach this process, and where it listens, unless ``bind`` says
        another; ``protocol`` is tcp or rdma, with ``devices``. Keys of another ``tenant`` are other keys. ``checksum``
        is xxh3, crc64 (which upstream's clients compare with ``MOONCAKE_STORE_CHECKSUM=1``) or none. Processes of one
        host and user hand one another their memory, unless ``neighbours`` is false. In the directory ``disk``, which
        no other process may use, up to ``disk_limit`` bytes of values are kept that leave this client's memory, where
        the master wants that. Raises ``TierTaken``, ``TierUnusable``.
        """
        arguments.all_text(master=master, hostname=hostname, metadata=metadata, protocol=protocol, devices=devices)
        self._client = Client(
            StoreOptions(
                master,
                hostname=hostname,
                segment_size=arguments.whole(segment_size, "the segment's size"),
                metadata=metadata,
                protocol=protocol,
                devices=devices,
                bind=None if bind is None else arguments.text(bind, "the address to bind"),
                tenant=arguments.text(tenant, "the tenant"),
                checksum=arguments.text(checksum, "the checksum"),
                neighbours=bool(neighbours),
                disk=None if disk is None else Path(disk),
                disk_limit=arguments.whole(disk_limit, "the limit of the disk"),
                setup_timeout=arguments.seconds(setup_timeout, "the timeout"),
            ),
            what=WHAT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        forks.refuse_to_be_sent(WHAT)

    # Values

    def put(self, key: str, value: Exporter, *, replace: bool = False, **how: Any) -> bool:
        """Put memory (``engine.memory.lent`` says what that is) under a key. False where the key has a value already.

        That value stays, unless it is to be ``replace``-d. ``how`` is as ``replication`` takes it. Raises ``PoolFull``,
        ``KeyBusy``, ``ValueNotWritten``, ``MasterRefused``, ``MasterUnavailable``; ``UsageError`` for an empty value,
        of which the pool has none.
        """
        with self._lent(value, f"the value of {key!r}") as view:
            outcome = self._write([Item(_key(key), [view])], replication(**how), replace=replace)[0]
        return _stored(outcome)

    def put_parts(self, key: str, parts: Sequence[Exporter], *, replace: bool = False, **how: Any) -> bool:
        """Put the bytes of several pieces of memory, one behind the other, as one value. As ``put``."""
        with contextlib.ExitStack() as held:
            views = [held.enter_context(self._lent(each, f"a part of {key!r}")) for each in parts]
            outcome = self._write([Item(_key(key), views)], replication(**how), replace=replace)[0]
        return _stored(outcome)

    def put_many(
        self, values: Mapping[str, Exporter] | Iterable[tuple[str, Exporter]], *, replace: bool = False, **how: Any
    ) -> list[bool]:
        """Put many values together. All are tried; then the first error is raised, as by ``put``."""
        pairs = list(values.items() if isinstance(values, Mapping) else values)
        with contextlib.ExitStack() as held:
            items = [
                Item(_key(key), [held.enter_context(self._lent(value, f"the value of {key!r}"))])
                for key, value in pairs
            ]
            outcome = self._write(items, replication(**how), replace=replace)
        return [_stored(each) for each in outcome]

    def get(self, key: str) -> bytes:
        """The value. Raises ``KeyNotFound``, ``ValueUnreadable``, ``ValueCorrupt``, ``MasterUnavailable``."""
        return _or_raise(self._get([_key(key)])[0])

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values; None where there is none. Raises as ``get`` for the first that is there and cannot be read."""
        found = self._get([_key(key) for key in arguments.texts(keys, "the keys")])
        return [None if isinstance(each, KeyNotFound) else _or_raise(each) for each in found]

    def get_into(self, key: str, memory: Exporter) -> int:
        """Bring a value into writable memory, which may be larger; its size.

        Raises as ``get``, and ``UsageError`` where the memory is too small. When it raises, what the memory holds is
        undefined.
        """
        return self.get_many_into({key: memory})[0]

    def get_many_into(self, targets: Mapping[str, Exporter]) -> list[int]:
        """Bring many values into memory; their sizes. All are tried; then the first error is raised."""
        keys = [_key(key) for key in targets]
        with contextlib.ExitStack() as held:
            views = [
                held.enter_context(self._lent(memory, f"the memory for {key!r}", writable=True))
                for key, memory in targets.items()
            ]

            def room(place: int, size: int) -> list[Part] | MooncakeError:
                if size > len(views[place]):
                    detail = f"the value of {keys[place]!r} has {size} bytes, and its memory {len(views[place])}"
                    return UsageError(detail=detail)
                return whole(views[place][:size])

            with self._called():
                found = self._client.reader.read(keys, room)
        return [_or_raise(each) for each in found]

    def get_range(self, key: str, offset: int, length: int, *, checked: bool = False) -> bytes:
        """A part of a value. Raises as ``get``, ``UsageError`` for what is outside.

        The checksum is that of the whole value: a part is compared only if it is ``checked``; then all is fetched.
        """
        offset, length = arguments.whole(offset, "the offset"), arguments.whole(length, "the length")
        if checked:
            value = self.get(key)
            if offset + length > len(value):
                raise _outside(key, offset, length, len(value))
            return value[offset : offset + length]
        data = bytearray(length)

        def room(_: int, size: int) -> list[Part] | MooncakeError:
            if offset + length > size:
                return _outside(key, offset, length, size)
            return [Part(offset, memoryview(data))]

        with self._called():
            _or_raise(self._client.reader.read([_key(key)], room)[0])
        return bytes(data)

    # Keys

    def __contains__(self, key: str) -> bool:
        return self.exists(key)

    def exists(self, key: str) -> bool:
        """Whether there is a value that can be read. The master then keeps it for a few seconds."""
        return self.exists_many([key])[0]

    def exists_many(self, keys: Sequence[str]) -> list[bool]:
        """The same for many keys in one call."""
        with self._called():
            answers = self._client.master.exist(arguments.texts(keys, "the keys"))
        for key, answer in zip(keys, answers, strict=True):
            if isinstance(answer, Code):
                raise refused(f"to say whether {key!r} exists", answer)
        return [bool(answer) for answer in answers]

    def size(self, key: str) -> int:
        """Bytes of a value. Raises ``KeyNotFound``."""
        return int(self.replicas(key).replicas[0].place.size)

    def replicas(self, key: str) -> Replicas:
        """Where a value lies. Raises ``KeyNotFound``."""
        with self._called():
            (answer,) = self._client.master.replicas([_key(key)])
        if isinstance(answer, Code):
            raise no_value(key, answer)
        return answer

    def remove(self, key: str, *, force: bool = False) -> None:
        """Remove a value, ``force`` also while somebody reads it. Raises ``KeyNotFound``, ``MasterRefused``."""
        with self._called():
            code = self._client.master.remove(_key(key), force=force)
        if code is Code.NOT_FOUND:
            raise KeyNotFound(key=key)
        if code is Code.NOT_READY:
            raise KeyBusy(key=key)
        if code is not Code.OK:
            raise refused(f"to remove {key!r}", code)

    def remove_matching(self, pattern: str, *, force: bool = False) -> int:
        """Remove all values whose key a regular expression finds; how many those were."""
        with self._called():
            count = self._client.master.remove_by_regex(arguments.text(pattern, "the pattern"), force=force)
        if isinstance(count, Code):
            raise refused(f"to remove what matches {pattern!r}", count)
        return count

    def remove_all(self, *, force: bool = False) -> int:
        """Remove all values of this tenant, those that are being read only by ``force``; how many those were."""
        with self._called():
            return self._client.master.remove_all(force=force)

    # The client

    @property
    def name(self) -> str:
        """This client's name among segments, ``host:port``: what ``preferred_segments`` may hold."""
        return self._client.name

    def check(self) -> None:
        """Raise what every call raises after ``close`` and in a forked child; do nothing otherwise."""
        self._client.closing.check()

    @property
    def why_not(self) -> str:
        """Why the master cannot be used now, in words; empty while it can."""
        self._client.closing.check()
        return self._client.master.why_not

    @property
    def dead(self) -> dict[str, Failed]:
        """Other clients whose memory could not be reached when it was last tried."""
        return self._client.dead.report()

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What went wrong in the background that nobody foresaw."""
        return self._client.failures

    def close(self) -> None:
        """Leave the pool; what lies in this client's memory is gone. Twice is harmless.

        Calls under way in other threads raise ``Closed``, and so do later ones. In a forked child it does nothing.
        """
        self._client.close()

    # Inside

    def _get(self, keys: Sequence[str]) -> list[bytes | MooncakeError]:
        made: dict[int, bytes] = {}

        def room(place: int, size: int) -> list[Part] | MooncakeError:
            made[place], view = unfilled(size)
            return whole(view)

        with self._called():
            found = self._client.reader.read(keys, room)
        return [each if isinstance(each, MooncakeError) else made[place] for place, each in enumerate(found)]

    def _write(self, items: Sequence[Item], config: ReplicateConfig, *, replace: bool) -> list[Outcome]:
        groups = config.group_ids
        if groups is not None and len(groups) == 1:
            config = config._replace(group_ids=list(groups) * len(items))
        elif groups is not None and len(groups) != len(items):
            raise UsageError(detail=f"{len(groups)} groups for {len(items)} values; give one for all, or one each")
        with self._called():
            return self._client.writer.write(items, config, replace=replace)

    @contextlib.contextmanager
    def _called(self) -> Iterator[None]:
        """A call that ``close`` may overtake: then that is why it fails."""
        closing = self._client.closing
        closing.check()
        try:
            yield
        except MooncakeError as error:
            if closing.begun and not isinstance(error, Closed):
                raise Closed(what=WHAT) from error
            raise

    @contextlib.contextmanager
    def _lent(self, source: Exporter, what: str, *, writable: bool = False) -> Iterator[memoryview]:
        self._client.closing.check()
        with byte_view(source, what, writable=writable) as view:
            yield view


def _key(key: str) -> str:
    if not arguments.text(key, "a key"):
        raise UsageError(detail="a key must not be empty")
    return key


def _outside(key: str, offset: int, length: int, size: int) -> UsageError:
    return UsageError(detail=f"{length} bytes at {offset} of {key!r}, which has {size}")


def _stored(outcome: Outcome) -> bool:
    return _or_raise(outcome).new


def _or_raise(found: T | MooncakeError) -> T:
    if isinstance(found, MooncakeError):
        raise found
    return found
