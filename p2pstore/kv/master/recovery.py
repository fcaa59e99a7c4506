"""What a master's state directory says of the pool that was, after whatever ended that master."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from p2pstore.kv.errors import StateUnusable
from p2pstore.kv.master.state_files import StateFile, log_path, numbered, snapshot_path, this_boot

log = logging.getLogger(__name__)


class Recovery:
    """Reads a directory. ``records`` gives what is there; only then the rest is known."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._boot = b""
        self._sure = True
        self.number = 0
        """The last log that counts; 0 where there is nothing."""
        self.length = 0
        """Bytes of that log that are whole."""
        self.highest = 0
        """The highest number of any file: a new one must not have it."""
        self.clean = False
        """Whether the last master closed it, so that all of it reached the disk."""

    def records(self) -> Iterator[bytes]:
        """The records of the newest snapshot, and of the logs since.

        Raises ``StateUnusable``, ``OtherVersion``, ``OSError``.
        """
        snapshots, logs = numbered(self._directory)
        self.highest = max([0, *snapshots, *logs])
        if not snapshots:
            return  # the first one was never complete, so nobody was told that anything is kept
        newest = snapshots[-1]
        yield from self._snapshot(newest)
        for number in [each for each in logs if each >= newest]:
            file = StateFile(log_path(self._directory, number))
            payloads = file.payloads()
            first = next(payloads, None)
            header = file.header
            if header is None or header.number != number:
                return
            if number != newest and (header.after, header.length) != (self.number, self.length):
                return
            if first is not None:
                yield first
                yield from payloads
            self._sure = self._sure and (self.number == 0 or self.clean or self._boot == header.boot)
            torn = file.path.stat().st_size - file.valid
            if torn:
                log.info("%s ends in %d bytes that were not written whole", file.path, torn)
            self.number, self.length, self.clean, self._boot = number, file.valid, file.complete, header.boot

    def believed(self) -> bool:
        """Whether all that was written is there: not if the machine went down before anybody had closed it.

        A pool that had forgotten what it evicted last would send readers to the bytes of other values.
        """
        return self._sure and (self.clean or self._boot == this_boot())

    def _snapshot(self, number: int) -> Iterator[bytes]:
        file = StateFile(snapshot_path(self._directory, number))
        yield from file.payloads()
        if not file.complete or file.header is None or file.header.number != number:
            raise StateUnusable(path=str(file.path), detail="it is damaged")
