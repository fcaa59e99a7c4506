"""Putting values: where each is to be written.

Between its start and its end a value cannot be read, and nobody else can have its key, unless the writer is gone or
takes too long. Then the next one has the key, and new memory: the old writer may still be writing to the old.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.rpc.codes import Code
from engine.rpc.messages import DEFAULT_TENANT, Lone, Replica, ReplicateConfig
from p2pstore.kv.pool.ages import Work
from p2pstore.kv.pool.disks import Disks
from p2pstore.kv.pool.entries import PROCESSING, Copies, Entry, Held, Place, Tenant, fresh, made, placed
from p2pstore.kv.pool.eviction import FOR_KEYS, STEP_ENTRIES, Eviction
from p2pstore.kv.pool.index import Index, keep_for_readers
from p2pstore.kv.pool.keeping import anywhere, configure, nothing_special, preferred_host, refused
from p2pstore.kv.pool.story import Event
from p2pstore.kv.pool.tasks import Tasks
from p2pstore.kv.pool.tenants import room_in
from p2pstore.kv.pool.write_ends import WriteEnds

MAX_KEY_BYTES = 16 << 20
"""Of one key: whoever needs more has made a mistake."""

SAID_TO_BE_THERE_S = 0.001
"""A value that a put is told is there stays so long: it must not make room for the rest of the same call."""

MAX_TOLD = 1000
"""Keys of a call that was refused as a whole of which that can be told."""

QUOTA_LOOKS = 4
"""Keys of one call for which room in a quota is looked for in vain, some milliseconds each, while all others wait."""


Started = Lone | list[Replica] | Code
"""What becomes of a key: where its value is to be written, or why it is not."""


class Writes:
    """The calls that begin to put values."""

    def __init__(self, index: Index, eviction: Eviction, tasks: Tasks, disks: Disks, ends: WriteEnds) -> None:
        self._index = index
        self._ends = ends
        self._eviction = eviction
        self._tasks = tasks
        self._disks = disks
        self._plain: ReplicateConfig | None = None
        """One that was looked at and has nothing special about it: callers repeat theirs, and it is one object."""

    def start_one(
        self, client: bytes, key: str, size: int, config: ReplicateConfig, tenant: str = DEFAULT_TENANT
    ) -> Started:
        """``start`` of one key."""
        index = self._index
        space = index.tenants.for_put(tenant)
        if space is not None and not space.quota and (config is self._plain or self._is_plain(config)):
            lone = self._quick(space, index.shared.id(client), key, size, index.clock(), None)
            if lone is not None:
                if config.host_id or index.lost_writers:
                    self._heard(client, config)
                return lone
        return self.start(client, (key,), (size,), config, tenant)[0]

    def start(
        self, client: bytes, keys: Sequence[str], sizes: Sequence[int], config: ReplicateConfig,
        tenant: str = DEFAULT_TENANT, *, upsert: bool = False,
    ) -> list[Started]:  # fmt: skip
        """Where the value of each key is to be written. Room is made for all of them together, one step at most."""
        index = self._index
        bad = refused(config, index.settings, len(keys))
        if len(sizes) != len(keys):
            bad = Code.BAD_PARAMS
        if bad is not None:
            return self._all_refused(client, keys, tenant, bad)
        space = index.tenants.for_put(tenant)
        if space is None:
            return self._all_refused(client, keys, tenant, Code.QUOTA)
        self._heard(client, config)
        batch = _Batch(index.shared.id(client), config, space, sizes, index.clock())
        if config.prefer_alloc_in_same_node or index.settings.allocation == "local_first":
            batch.host = preferred_host(index, client, config)
        plain = not upsert and not space.quota and self._is_plain(config)
        begun: list[Started] = [*self._fresh(batch, keys)] if plain else []
        for number in range(len(begun), len(keys)):
            key, size = keys[number], sizes[number]
            lone = self._quick(space, batch.client, key, size, batch.now, batch.begun) if plain else None
            begun.append(lone or self._start(batch, number, key, upsert=upsert))
        return begun

    def _heard(self, client: bytes, config: ReplicateConfig) -> None:
        index = self._index
        index.lost_writers.discard(client)
        if config.host_id and client in index.clients:
            index.clients[client].host_id = config.host_id

    def _is_plain(self, config: ReplicateConfig) -> bool:
        """Whether new values are to have nothing special about them, and may lie anywhere."""
        if config is self._plain:
            return True
        if (
            nothing_special(config)
            and anywhere(config)
            and refused(config, self._index.settings) is None
            and self._index.settings.allocation != "local_first"
        ):
            self._plain = config
            return True
        return False

    def _quick(
        self, space: Tenant, client: bytes, key: str, size: int, now: float, begun: set[Entry] | None
    ) -> Lone | None:
        """Begin a value as nearly all are: new, with room for it at once. None: look closer."""
        index = self._index
        if key in space.keys or not 0 < len(key) <= MAX_KEY_BYTES or size <= 0 or index.full(key):
            return None
        place = index.segments.somewhere(size)
        if place is None:
            return None
        held = Held(*place)
        entry = Entry(key, space, index.shared.size(size), client, held)
        index.begin(entry, now)
        if begun is not None:
            begun.add(entry)
        segment, offset = place
        fields = (segment.first_id | offset, size, segment.base + offset, segment.owner, PROCESSING, 0, None)
        return made(Lone, fields)

    def _fresh(self, batch: _Batch, keys: Sequence[str]) -> list[Lone]:
        """Begin values that are as nearly all are, new and of one size, with room at once: the first of the keys.

        Those behind them, or all where some are not so, need a closer look.
        """
        index, space, sizes = self._index, batch.space, batch.sizes
        count = len(keys)
        if count < 2 or not space.keys.keys().isdisjoint(keys) or len(set(keys)) < count:
            return []
        size, lengths = sizes[0], list(map(len, keys))
        if size <= 0 or sizes.count(size) < count or not min(lengths) or max(lengths) > MAX_KEY_BYTES:
            return []
        characters = sum(lengths)
        if not index.has_room(count, characters):
            return []
        places = index.segments.places(size, count)
        if len(places) < count:
            if not places:
                return []
            characters = sum(lengths[: len(places)])
        entries = fresh(places, keys, space, index.shared.size(size), batch.client)
        index.begin_all(entries, keys[: len(entries)], characters, batch.now)
        batch.begun.update(entries)
        return [
            made(Lone, (held.first_id | offset, size, held.base + offset, held.owner, PROCESSING, 0, None))
            for held, offset in places
        ]

    def _start(self, batch: _Batch, number: int, key: str, *, upsert: bool) -> list[Replica] | Code:
        size = batch.sizes[number]
        if not key or len(key) > MAX_KEY_BYTES or size <= 0:
            return self._refuse(batch, key, Code.BAD_PARAMS)
        index, space = self._index, batch.space
        old = space.keys.get(key)
        if old is not None:
            if old in batch.begun:
                return Code.EXISTS  # twice in one call
            standing = self._standing(old, batch, number, upsert=upsert)
            if standing is not None:
                return standing
        elif index.full(key) and not self._room_for_key(batch, key):
            return self._refuse(batch, key, Code.QUOTA)
        if space.quota and not self._quota_allows(batch, size):
            return self._refuse(batch, key, Code.QUOTA)
        place = self._allocate(batch, number)
        if place is None:
            index.stats.put_start_alloc_failures += 1
            return self._refuse(batch, key, Code.NO_SPACE)
        entry = Entry(key, space, index.shared.size(size), batch.client, place)
        if old is not None or not batch.plain:
            self._prepare(entry, batch, number, upsert=upsert)
        return self._begin(entry, batch)

    def _prepare(self, entry: Entry, batch: _Batch, number: int, *, upsert: bool) -> None:
        """See to what is special about a value, and to that whose place it takes."""
        old = batch.space.keys.get(entry.key)  # which may have gone to make room
        configure(self._index, entry, batch.config, number, old if upsert else None)
        if old is not None:
            self._index.drop(old, keep_until=keep_for_readers(self._index, old) if upsert else 0.0)

    def _all_refused(self, client: bytes, keys: Sequence[str], tenant: str, code: Code) -> list[Started]:
        """Refuse a call as a whole, and remember that of its first keys."""
        index = self._index
        event = Event("refused", index.clock(), client, code.name)
        for key in keys[:MAX_TOLD]:
            index.story.tell(key, tenant if index.settings.tenants else DEFAULT_TENANT, event)
        return [code] * len(keys)

    def _refuse(self, batch: _Batch, key: str, code: Code) -> Code:
        event = Event("refused", batch.now, batch.client, code.name)
        self._index.story.tell(key, batch.space.name, event)
        return code

    def _room_for_key(self, batch: _Batch, key: str) -> bool:
        """Have the oldest make room for one more in the index; tells whether there is."""
        index = self._index
        self._eviction.step(batch.now, lambda: index.full(key), FOR_KEYS, batch.work)
        return not index.full(key)

    def _quota_allows(self, batch: _Batch, size: int) -> bool:
        """Whether the tenant may have such a value; its own oldest make room for it."""
        space = batch.space
        if room_in(space, size):
            return True
        if not batch.looks or size > space.quota:
            return False
        self._eviction.make_room_in(space, size, batch.now)
        fits = room_in(space, size)
        batch.looks -= not fits
        return fits

    def _begin(self, entry: Entry, batch: _Batch) -> list[Replica]:
        self._index.begin(entry, batch.now)
        batch.begun.add(entry)
        return [held.described(entry.size) for held in entry.memory]

    def _standing(self, found: Entry, batch: _Batch, number: int, *, upsert: bool) -> list[Replica] | Code | None:
        """What is to be answered because of what the key has now; None where a new write may begin."""
        index = self._index
        started = index.writing.get(found)
        if started is not None:
            late = batch.now - started >= index.settings.put_discard
            same = found.writer == batch.client
            writer = index.clients.get(found.writer)
            gone = not same and (
                found.writer in index.lost_writers if writer is None else writer.silent(batch.now, index.settings)
            )
            if not late and not gone and not (upsert and not same):
                return Code.NOT_READY
            if same and found.size == batch.sizes[number] and all(held.segment.alive for held in found.memory):
                return self._again(found, batch)
            self._ends.discard(found, batch.now)
            return None
        if not upsert:
            if not found.readable:
                return None
            found.until = max(found.until, batch.now + SAID_TO_BE_THERE_S)
            return Code.EXISTS
        return self._upsert(found, batch, number)

    def _again(self, found: Entry, batch: _Batch) -> list[Replica]:
        """The same client begins the same write again: it gets the same memory.

        Its first write may still be under way in another thread, and nobody could tell the ends of the two apart.
        """
        index = self._index
        del index.writing[found]
        index.writing[found] = batch.now
        return [held.described(found.size) for held in found.memory]

    def _upsert(self, found: Entry, batch: _Batch, number: int) -> list[Replica] | Code | None:
        if self._tasks.busy(found) or self._disks.refuses(found):
            return Code.HAS_TASK
        group = found.more.group.name if found.more and found.more.group else ""
        if batch.config.group_ids is not None and batch.config.group_ids[number] != group:
            return Code.BAD_PARAMS
        memory = [held for held in found.memory if held.readable]
        if (
            found.size != batch.sizes[number]
            or not memory
            or len(memory) != len(found.replicas)
            or found.leased_until > batch.now
        ):
            return None  # readers may be at it: new memory, and the old one is kept until they are through
        index = self._index
        entry = Entry(
            found.key,
            found.tenant,
            found.size,
            batch.client,
            placed([Held(held.segment, held.offset) for held in memory]),
        )
        configure(index, entry, batch.config, number, found)
        index.drop(found, hand_over=True)
        return self._begin(entry, batch)

    def _allocate(self, batch: _Batch, number: int) -> Place | None:
        """Memory for one value, in as many segments as it is to lie in, if there are so many with room."""
        index, config = self._index, batch.config
        size = batch.sizes[number]
        segments = index.segments
        while True:
            found = segments.allocate(size, config.replica_num, batch.preferred, batch.host)
            if found:
                if len(found) < config.replica_num:
                    index.stats.put_start_partial_allocations += 1
                if len(found) == 1:
                    return Held(*found[0])
                return Copies([Held(segment, offset) for segment, offset in found])
            if batch.work.left <= 0 or size > segments.max_value:
                return None
            goal = max(0, min(segments.capacity - sum(batch.sizes[number:]), segments.used - size))
            self._eviction.down_to(goal, batch.now, batch.work)
            if self._eviction.exhausted:
                batch.work.left = 0


class _Batch:
    """What the keys of one call share."""

    __slots__ = ("begun", "client", "config", "host", "looks", "now", "plain", "preferred", "sizes", "space", "work")

    def __init__(self, client: bytes, config: ReplicateConfig, space: Tenant, sizes: Sequence[int], now: float) -> None:
        self.client = client
        self.config = config
        self.space = space
        self.sizes = sizes
        self.now = now
        self.preferred = [config.preferred_segment] if config.preferred_segment else config.preferred_segments
        self.host = ""
        self.plain = nothing_special(config)
        """Whether new values have nothing special about them."""
        self.begun: set[Entry] = set()
        self.work = Work(STEP_ENTRIES)
        """Entries that may still be looked at to make room."""
        self.looks = QUOTA_LOOKS
