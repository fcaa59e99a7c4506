"""Changes of a pool as bytes, for a journal; and as what they were.

A record says how something is now, never what was done to it: so that a snapshot that was taken in slices, while the
pool went on, is made right by the records that were written since it began. A snapshot consists of the same records.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from engine.rpc.messages import Segment
from p2pstore.kv.pool.entries import Entry, Held

MOUNTED, UNMOUNTED, VALUE, DROPPED, RESERVED, RELEASED, QUOTA = range(1, 8)

_KIND = struct.Struct("<B")
_SHORT = struct.Struct("<H")
_LONG = struct.Struct("<I")
_VALUE = struct.Struct("<Q16sBB")  # size, writer, flags, replicas
_MEMORY = struct.Struct("<BIQ")  # 0, segment, offset
_USUAL = struct.Struct("<Q16sBBBIQ")  # the two above, one after the other
_USUAL_SUM = struct.Struct("<Q16sBBQBIQ")  # with a checksum between them
_DISK = struct.Struct("<B16sQ")  # 1, client, size
_NUMBER = struct.Struct("<Q")
_SECONDS = struct.Struct("<d")
_PLACE = struct.Struct("<BIQQ")
_RELEASED = struct.Struct("<BIQ")
_MOUNTED = struct.Struct("<BI16s16sQQ")
_UNMOUNTED = struct.Struct("<BI")
_QUOTA = struct.Struct("<BQ")

_CHECKSUM, _HARD, _SOFT, _GROUP, _TYPE = 1, 2, 4, 8, 16


class BadRecord(ValueError):
    """Bytes that are no record, though their checksum was right: another version's, or a defect."""


class MemoryPlace(NamedTuple):
    """A replica in memory."""

    segment: int
    offset: int


class DiskPlace(NamedTuple):
    """A replica on a client's disk."""

    client: bytes
    size: int
    endpoint: str


class Value(NamedTuple):
    """A value that can be read."""

    tenant: str
    key: str
    size: int
    writer: bytes
    places: Sequence[MemoryPlace | DiskPlace]
    checksum: int | None
    hard: bool
    soft_s: float
    group: str
    data_type: int


class Mount(NamedTuple):
    """A segment."""

    number: int
    client: bytes
    segment: Segment


class Unmount(NamedTuple):
    """A segment that is not there any more, with all that lay in it."""

    number: int


class Dropped(NamedTuple):
    """A value that cannot be read any more."""

    tenant: str
    key: str


class Reserved(NamedTuple):
    """A place to which somebody may write."""

    segment: int
    offset: int
    size: int


class Released(NamedTuple):
    """The same place, free again."""

    segment: int
    offset: int


class Quota(NamedTuple):
    """What a tenant may have, as somebody set it while the pool ran; 0 if all there is."""

    tenant: str
    size: int


Record = Value | Mount | Unmount | Dropped | Reserved | Released | Quota


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _short(text: str) -> bytes:
    data = _bytes(text)
    return _SHORT.pack(len(data)) + data


def value(entry: Entry, now: float) -> bytes:
    """A value as it is now: those of its replicas that are whole."""
    place = entry.place
    if entry.more is None and isinstance(place, Held) and place.ready and not place.segment.gone:
        return _usual(entry, place)
    flags = 0
    parts: list[bytes] = []
    if entry.checksum is not None:
        flags |= _CHECKSUM
        parts.append(_NUMBER.pack(entry.checksum))
    more = entry.more
    if more is not None:
        flags |= _HARD if more.hard else 0
        if more.pinned_until > now:
            flags |= _SOFT
            parts.append(_SECONDS.pack(more.pinned_until - now))
        if more.group is not None:
            flags |= _GROUP
            parts.append(_short(more.group.name))
        if more.data_type:
            flags |= _TYPE
            parts.append(_KIND.pack(more.data_type))
    memory = [held for held in entry.memory if held.ready and not held.segment.gone]
    disks = entry.disks
    key = _bytes(entry.key)
    return b"".join(
        (
            _KIND.pack(VALUE),
            _short(entry.tenant.name),
            _LONG.pack(len(key)),
            key,
            _VALUE.pack(entry.size, entry.writer, flags, len(memory) + len(disks)),
            *parts,
            *[_MEMORY.pack(0, held.segment.number, held.offset) for held in memory],
            *[_DISK.pack(1, disk.client.id, disk.size) + _short(disk.endpoint) for disk in disks],
        )
    )


def _usual(entry: Entry, held: Held) -> bytes:
    """The same, at once, of what nearly all values are: nothing special, in one place in memory."""
    key = entry.key.encode("utf-8", "surrogatepass")
    head = entry.tenant.record_head
    if not head:
        head = entry.tenant.record_head = _KIND.pack(VALUE) + _short(entry.tenant.name)
    checksum, number = entry.checksum, held.segment.number
    if checksum is None:
        tail = _USUAL.pack(entry.size, entry.writer, 0, 1, 0, number, held.offset)
    else:
        tail = _USUAL_SUM.pack(entry.size, entry.writer, _CHECKSUM, 1, checksum, 0, number, held.offset)
    return b"".join((head, _LONG.pack(len(key)), key, tail))


def dropped(tenant: str, key: str) -> bytes:
    """A value that went."""
    return _KIND.pack(DROPPED) + _short(tenant) + _bytes(key)


def reserved(segment: int, offset: int, size: int) -> bytes:
    """A place that somebody was told to write to."""
    return _PLACE.pack(RESERVED, segment, offset, size)


def released(segment: int, offset: int) -> bytes:
    """The same, free again without a value."""
    return _RELEASED.pack(RELEASED, segment, offset)


def mounted(number: int, client: bytes, segment: Segment) -> bytes:
    """A segment that came."""
    texts = (segment.name, segment.endpoint, segment.protocol, segment.host_id)
    head = _MOUNTED.pack(MOUNTED, number, segment.id, client, segment.base, segment.size)
    return head + b"".join(_short(text) for text in texts)


def unmounted(number: int) -> bytes:
    """A segment that went."""
    return _UNMOUNTED.pack(UNMOUNTED, number)


def quota(tenant: str, size: int) -> bytes:
    """A tenant's quota that was set or taken away."""
    return _QUOTA.pack(QUOTA, size) + _bytes(tenant)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def numbers(self, form: struct.Struct) -> tuple[int, ...]:
        found = form.unpack_from(self.data, self.at)
        self.at += form.size
        return found

    def text(self, length: int) -> str:
        end = self.at + length
        if end > len(self.data):
            raise BadRecord("a text ends behind the record")
        found = self.data[self.at : end].decode("utf-8", "surrogatepass")
        self.at = end
        return found

    def short(self) -> str:
        return self.text(self.numbers(_SHORT)[0])


def read(data: bytes) -> Record:
    """What a record says. Raises ``BadRecord``."""
    try:
        return _read(_Reader(data))
    except (struct.error, UnicodeDecodeError, KeyError, IndexError) as error:
        raise BadRecord(str(error)) from None


def _read(reader: _Reader) -> Record:
    kind = reader.data[0]
    if kind == VALUE:
        return _read_value(reader)
    if kind == DROPPED:
        reader.at = 1
        return Dropped(reader.short(), reader.text(len(reader.data) - reader.at))
    if kind == RESERVED:
        return Reserved(*reader.numbers(_PLACE)[1:])
    if kind == RELEASED:
        return Released(*reader.numbers(_RELEASED)[1:])
    if kind == UNMOUNTED:
        return Unmount(reader.numbers(_UNMOUNTED)[1])
    if kind == QUOTA:
        size = reader.numbers(_QUOTA)[1]
        return Quota(reader.text(len(reader.data) - reader.at), size)
    if kind == MOUNTED:
        _, number, name, client, base, size = _MOUNTED.unpack_from(reader.data, 0)
        reader.at = _MOUNTED.size
        title, endpoint, protocol, host = (reader.short() for _ in range(4))
        return Mount(number, client, Segment(name, title, base, size, endpoint, protocol, host))
    raise BadRecord(f"a record of kind {kind}")


def _read_value(reader: _Reader) -> Value:
    reader.at = 1
    tenant = reader.short()
    key = reader.text(reader.numbers(_LONG)[0])
    size, writer, flags, count = _VALUE.unpack_from(reader.data, reader.at)
    reader.at += _VALUE.size
    checksum = reader.numbers(_NUMBER)[0] if flags & _CHECKSUM else None
    soft = float(reader.numbers(_SECONDS)[0]) if flags & _SOFT else 0.0
    group = reader.short() if flags & _GROUP else ""
    data_type = reader.numbers(_KIND)[0] if flags & _TYPE else 0
    places: list[MemoryPlace | DiskPlace] = []
    for _ in range(count):
        if reader.data[reader.at] == 0:
            places.append(MemoryPlace(*reader.numbers(_MEMORY)[1:]))
        else:
            _, client, length = _DISK.unpack_from(reader.data, reader.at)
            reader.at += _DISK.size
            places.append(DiskPlace(client, length, reader.short()))
    return Value(tenant, key, size, writer, places, checksum, bool(flags & _HARD), soft, group, data_type)
