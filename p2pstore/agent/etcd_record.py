"""Which etcd process belongs to a directory: its record on disk, and whether that process still lives.

A process number alone says little, because numbers are used again; together with the process's start time it is unique
until the next boot, and the boot's id is recorded too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.files.writing import replace_file
from engine.net.host_id import known_boot_id
from engine.processes import start_time

RECORD = "etcd.json"
"""File name of the record."""

MAX_RECORD = 4096
"""Bytes of a record that are read."""


@dataclass(frozen=True)
class Recorded:
    """An etcd that was started: ``started`` is field 22 of ``/proc/PID/stat`` in clock ticks since boot."""

    pid: int
    started: int
    url: str
    boot: str = ""


def is_alive(record: Recorded) -> bool:
    """Whether that very process runs."""
    if record.pid <= 1 or record.started <= 0 or record.boot not in {"", known_boot_id()}:
        return False
    return start_time(record.pid) == record.started


def write_record(directory: Path, record: Recorded) -> None:
    """Record it atomically."""
    data = {**asdict(record), "boot": known_boot_id()}
    replace_file(directory / RECORD, json.dumps(data).encode() + b"\n")


def read_record(directory: Path) -> Recorded | None:
    """What is recorded; None where nothing is, or nothing that makes sense."""
    try:
        with (directory / RECORD).open("rb") as file:
            data = json.loads(file.read(MAX_RECORD))
        record = Recorded(
            pid=int(data["pid"]),
            started=int(data["started"]),
            url=str(data["url"]),
            boot=str(data["boot"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return record if record.url else None
