"""The files of a master's state: frames behind a header, each with a checksum, and what may be believed of them.

``log-N`` holds what changed, ``snapshot-N`` all that was there when ``log-N`` was begun or later. So the state is the
newest snapshot, and the logs from its number on. A frame that is not whole ends a file: it was being written when the
process, or the machine, ended.
"""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

MAGIC = b"MOONKV1\n"
"""The seventh byte is the version."""

MAX_FRAME = 96 << 20
"""Bytes of a record: a key may have 16 Mi characters of four bytes."""

READ_BYTES = 1 << 20
"""What is read of a file at a time."""

NOTHING = 0xFFFF_FFFF_FFFF_FFFF
"""Where a log does not go on where another ended: without the snapshot of its number it is worth nothing."""

_HEADER = struct.Struct("<8sQ16sQQ")  # magic, number, boot, number and length of the log before
_SUM = struct.Struct("<I")
_FRAME = struct.Struct("<II")  # length, checksum

HEADER_BYTES = _HEADER.size + _SUM.size


class OtherVersion(ValueError):
    """A file of a version that is not known here."""


class Header(NamedTuple):
    """How a file begins: in which run of the machine, and behind which log of which length."""

    number: int
    boot: bytes
    after: int
    length: int

    def packed(self) -> bytes:
        """As it is written."""
        data = _HEADER.pack(MAGIC, *self)
        return data + _SUM.pack(zlib.crc32(data))


def frames(number: int, payloads: Iterable[bytes]) -> bytes:
    """Payloads as they are written to the file of that number; an empty one says that the file is complete."""
    parts = []
    for payload in payloads:
        parts.append(_FRAME.pack(len(payload), zlib.crc32(payload, number & 0xFFFF_FFFF)))
        parts.append(payload)
    return b"".join(parts)


class StateFile:
    """A file that is read. ``valid`` is the length of what could be read; ``complete`` that nothing was to follow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: Header | None = None
        self.valid = 0
        self.complete = False

    def payloads(self) -> Iterator[bytes]:
        """What is in it, up to the first frame that is not whole.

        Raises ``OtherVersion``, since what it cannot read is no reason to take the file for torn, and ``OSError``.
        """
        with self.path.open("rb", buffering=READ_BYTES) as file:
            head = file.read(HEADER_BYTES)
            if head[:6] == MAGIC[:6] and head[6:7].isdigit() and head[7:8] == MAGIC[7:] and head[:8] != MAGIC:
                raise OtherVersion(f"{self.path} is of version {head[6:7].decode()}")
            if len(head) < HEADER_BYTES or _SUM.unpack(head[-4:])[0] != zlib.crc32(head[:-4]) or head[:8] != MAGIC:
                return
            self.header = Header(*_HEADER.unpack(head[:-4])[1:])
            self.valid = HEADER_BYTES
            seed = self.header.number & 0xFFFF_FFFF
            while True:
                start = file.read(_FRAME.size)
                if len(start) < _FRAME.size:
                    return
                length, checksum = _FRAME.unpack(start)
                if length > MAX_FRAME:
                    return
                payload = file.read(length)
                if len(payload) < length or zlib.crc32(payload, seed) != checksum:
                    return
                self.valid += _FRAME.size + length
                self.complete = not payload
                if payload:
                    yield payload


def log_path(directory: Path, number: int) -> Path:
    """Where the log of that number is."""
    return directory / f"log-{number:010}"


def snapshot_path(directory: Path, number: int) -> Path:
    """Where the snapshot of that number is, once it is complete."""
    return directory / f"snapshot-{number:010}"


def part_path(directory: Path, number: int) -> Path:
    """Where it is until then."""
    return directory / f"snapshot-{number:010}.part"


def numbered(directory: Path) -> tuple[list[int], list[int]]:
    """The numbers of the snapshots and of the logs that are there, ascending. Raises ``OSError``."""
    names = os.listdir(directory)
    found: tuple[list[int], list[int]] = ([], [])
    for which, prefix in enumerate(("snapshot-", "log-")):
        numbers = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
        found[which].extend(sorted(int(number) for number in numbers if number.isdecimal()))
    return found


def older(directory: Path, number: int) -> list[Path]:
    """What is not needed any more once the snapshot of that number is complete. Raises ``OSError``."""
    snapshots, logs = numbered(directory)
    found = [snapshot_path(directory, each) for each in snapshots if each != number]
    found += [log_path(directory, each) for each in logs if each != number]
    return found + [path for path in directory.glob("snapshot-*.part") if path != part_path(directory, number)]


def this_boot() -> bytes:
    """Which run of this machine it is: what was written before another one may have been lost in part."""
    try:
        return uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()).bytes
    except (OSError, ValueError):
        return bytes(16)
