"""Who belongs to the pool: clients and their segments come, stand still, come back and go.

A client that has not pinged for too long is absent: nobody is sent to it, and nothing new is put there. What lies in
its memory is kept in the index, because a process that was stopped, or cut off, comes back with its memory whole. It
says so by mounting the same segments again. A client that is told of, because its connection is gone or somebody could
not read from it, has less time to ping; one that never pinged yet has more.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.rpc.codes import Code
from engine.rpc.messages import ClientStatus, Ping, Segment
from p2pstore.kv.pool import records
from p2pstore.kv.pool.clients import Client
from p2pstore.kv.pool.entries import Entry, Held, OnDisk
from p2pstore.kv.pool.index import Index
from p2pstore.kv.pool.segments import Mounted, valid
from p2pstore.kv.pool.walks import Everything

MAX_CLIENTS = 20_000
"""Clients at a time."""

CHECK_S = 0.5
"""Seconds between two looks at who is silent; that costs some 0.1 us a client."""

SWEEP_ENTRIES = 1000
"""Values that one step of a sweep looks at: about a millisecond."""


class Members:
    """The clients and segments of one index."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._next_check = 0.0
        self._sweep: _Sweep | None = None

    # -- calls

    def mount(self, client: bytes, segment: Segment) -> Code:
        """Have one more segment. The same one again is no fault."""
        if not valid(segment):
            return Code.BAD_PARAMS
        index = self._index
        known = index.segments.by_id.get(segment.id)
        if known is not None:
            if known.client != client or not known.same_as(segment):
                return Code.SEGMENT_EXISTS
            if known.closing is not None:
                return Code.BAD_STATUS
            if index.client(client).alive:
                index.segments.wake(known)
            return Code.OK
        if not self._supersede(client, segment):
            return Code.SEGMENT_EXISTS
        if client not in index.clients and len(index.clients) >= MAX_CLIENTS:
            return Code.QUOTA
        number = index.segments.next_number()
        if number is None:
            return Code.QUOTA
        owner = index.client(client)
        mounted = Mounted(segment, client, number)
        mounted.alive = owner.alive  # who was absent says first, by a remount, what else it still has
        if owner.alive:
            self._heard(owner, segment.host_id)
        index.segments.add(mounted)
        owner.segments[segment.id] = mounted
        index.note(records.mounted(number, client, segment))
        return Code.OK

    def remount(self, client: bytes, segments: Sequence[Segment]) -> Code:
        """Have a client back with what it has now: the same memory holds its values again, other memory is gone."""
        index = self._index
        known = index.clients.get(client)
        if known is None and len(index.clients) >= MAX_CLIENTS:
            return Code.QUOTA
        if known is not None and not known.alive:
            for mounted in list(known.segments.values()):
                if not any(mounted.same_as(segment) for segment in segments):
                    self._unmount(mounted, "its owner came back without it")
        self._heard(self._present(client), segments[0].host_id if segments else "")
        for segment in segments:
            code = self.mount(client, segment)
            if code not in {Code.OK, Code.BAD_PARAMS, Code.SEGMENT_EXISTS}:  # these would not change by asking again
                return code
        return Code.OK

    def unmount(self, client: bytes, name: bytes, grace: float = 0.0) -> Code:
        """Have it no more, at once or after ``grace`` seconds, in which it is read and not written to."""
        index = self._index
        mounted = index.segments.by_id.get(name)
        if mounted is None:
            return Code.OK
        if mounted.client != client:
            return Code.ILLEGAL_CLIENT
        if grace > 0:
            mounted.closing = index.clock() + grace
            index.segments.reopen()
        else:
            self._unmount(mounted, "its owner took it back")
        return Code.OK

    def ping(self, client: bytes) -> Ping:
        """It is there. Whoever is not known, or was absent, is asked to mount what it has again."""
        known = self._index.clients.get(client)
        view = self._index.settings.view
        if known is None or not known.alive:
            return Ping(view, ClientStatus.NEED_REMOUNT)
        known.pinged = self._index.clock()
        self._heard(known)
        return Ping(view, ClientStatus.OK)

    def lost(self, client: bytes) -> None:
        """All of its connections are gone."""
        index = self._index
        known = index.clients.get(client)
        if known is not None:
            known.lost = True
            for mounted in known.segments.values():
                mounted.suspected = True
            self._doubt(known)
        elif len(index.lost_writers) < MAX_CLIENTS and any(entry.writer == client for entry in index.writing):
            index.lost_writers.add(
                client
            )  # one that gives no memory never pings: its calls are all that is heard of it

    def suspect(self, endpoint: str, *, refused: bool = False) -> None:
        """Somebody could not read from there, or write to it; ``refused`` where nothing listens there."""
        for mounted in list(self._index.segments):
            if mounted.endpoint == endpoint:
                mounted.suspected = True
                known = self._index.clients.get(mounted.client)
                if known is not None:
                    known.refused = known.refused or refused
                    self._doubt(known)

    # -- time

    def tick(self, now: float) -> bool:
        """See who is silent, and sweep a little; tells whether there is more to sweep."""
        if now >= self._next_check:
            self._next_check = now + CHECK_S
            for client in [each for each in self._index.clients.values() if each.deadline(self._index.settings) <= now]:
                self._expire(client, now)
            for mounted in [each for each in self._index.segments if each.closing is not None and each.closing <= now]:
                self._unmount(mounted, "its owner took it back")
        return self._swept()

    def due(self) -> float | None:
        """When to look again."""
        if self._sweep is not None or self._index.gone or self._index.disks_gone:
            return 0.0
        return self._next_check if self._index.clients else None

    # -- how

    def _present(self, client: bytes) -> Client:
        known = self._index.client(client)
        if not known.alive:
            known.alive = True
            known.pinged = known.heard = self._index.clock()
            self._index.stats.active_clients += 1
        return known

    def _heard(self, client: Client, host_id: str = "") -> None:
        client.heard = self._index.clock()
        client.lost = client.refused = False
        client.host_id = host_id or client.host_id
        if client.hinted:
            client.hinted = False
            for mounted in client.segments.values():
                mounted.suspected = False

    def _supersede(self, client: bytes, segment: Segment) -> bool:
        """Unmount what others had at these addresses; False if the client itself has something there."""
        others = [each for each in self._index.segments if each.overlaps(segment)]
        if any(each.client == client for each in others):
            return False
        for other in others:
            self._unmount(other, "another process has its address now")  # which it can only if that one is dead
        return True

    def _doubt(self, client: Client) -> None:
        client.hinted = True
        now = self._index.clock()
        if client.alive and client.deadline(self._index.settings) <= now:
            self._expire(client, now)
        else:
            self._next_check = 0.0

    def _expire(self, client: Client, now: float) -> None:
        index = self._index
        if client.alive:
            client.alive = False
            client.absent_since = now
            index.stats.active_clients -= 1
            for mounted in client.segments.values():
                index.segments.sleep(mounted)
            if client.segments or client.disk is not None:
                return
        self.forget(client)

    def forget(self, client: Client) -> None:
        """Have it no more, with all that it gave."""
        for mounted in list(client.segments.values()):
            self._unmount(mounted, "its owner did not come back")
        if client.disk is not None:
            client.disk.gone = True
            client.disk = None
            self._index.disks_gone = True
        if client.alive:
            self._index.stats.active_clients -= 1
            client.alive = False
        self._index.clients.pop(client.id, None)

    def _unmount(self, mounted: Mounted, why: str) -> None:
        index = self._index
        index.segments.remove(mounted)
        owner = index.clients.get(mounted.client)
        if owner is not None:
            owner.segments.pop(mounted.id, None)
        index.note(records.unmounted(mounted.number))
        index.gone.append(mounted)
        index.why_gone[mounted.number] = why
        for entry in list(index.writing):  # these are few, and their writers ask next
            self._clean(entry)

    def _swept(self) -> bool:
        index = self._index
        if self._sweep is None:
            if not index.gone and not index.disks_gone:
                return False
            self._sweep = _Sweep(index)
        for entry in self._sweep.step(SWEEP_ENTRIES):
            self._clean(entry)
        if self._sweep.ended:
            self._sweep = None
        return self._sweep is not None or bool(index.gone) or index.disks_gone

    def _clean(self, entry: Entry) -> None:
        """Take what is gone out of a value; the value goes with its last replica."""
        index = self._index
        leaving = [each for each in entry.replicas if is_gone(each)]
        if not leaving:
            return
        held = next((each for each in leaving if isinstance(each, Held)), None)
        if held is not None and len(leaving) == len(entry.replicas):
            why = index.why_gone.get(held.segment.number, "")
            index.tell(entry, "unmounted", f"{held.segment.endpoint}: {why}", held.segment.client)
        index.without(entry, leaving)


def is_gone(replica: Held | OnDisk) -> bool:
    """Whether it can never be read again."""
    return replica.segment.gone if isinstance(replica, Held) else replica.disk.gone


class _Sweep:
    """Looks at every value once, to take out what lay in segments that were gone when it began."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._gone, index.gone = index.gone, []
        index.disks_gone = False
        self._walk = Everything(index)

    @property
    def ended(self) -> bool:
        """Whether all were looked at."""
        return self._walk.ended

    def step(self, count: int) -> list[Entry]:
        """The next values; none when it has ended."""
        found = self._walk.step(count)
        if self._walk.ended:
            for mounted in self._gone:
                self._index.segments.swept(mounted)
                self._index.why_gone.pop(mounted.number, None)
        return found
