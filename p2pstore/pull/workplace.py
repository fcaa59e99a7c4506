"""Where a get works until its object is whole: a hidden directory of its own beside the destination, or inside it.

In it are the partial form, the journal, and a note of whose get it is (``owner.1``, then ``owner.2`` for the process
that goes on from there). The directory is made anew, or it is one that a get of this user's left for the same
destination, and whose process has provably let go of it. Nobody else's file is ever opened, renamed or removed.

The name is short whatever the destination's is, so that it fits where that one does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from engine.files.writing import write_all
from p2pstore.errors import DestinationBusy, StorageError
from p2pstore.objects.file_system import remove, words
from p2pstore.objects.mounts import LOCAL, Mounts
from p2pstore.pull.journal import Journal, LockedFile, lock_journal
from p2pstore.pull.ownership import Owner, Verdict, judge, still_runs, this_process

STEM_BYTES = 40
"""Of the destination's name so much is in the directory's, for people: some file systems take 143 bytes in all."""

MAX_WORKPLACES = 8
"""Directories for one destination: a second only where it is not known whether a get works in the first."""

STALE_SECONDS = 7 * 24 * 3600
"""After so long without a verified chunk a get of which nothing is known is not going on: its leftovers are removed."""

_live: set[str] = set()
"""Where gets of this process work; to add one and to discard it are one step each."""

_NOTE = re.compile(r"(owner|ended)\.([0-9]{1,9})")
_MAX_NOTE_BYTES = 4096
_JOURNAL = "journal"
_FILLING = "filling"


def work_name(last: str, number: int = 0) -> str:
    """The name of the directory for a destination whose last part is ``last``; of several, that of ``number``."""
    stem = os.fsencode(last)[:STEM_BYTES].decode(errors="ignore").lstrip(".")
    key = hashlib.sha256(b"%d/%d/%s" % (os.geteuid(), number, os.fsencode(last))).hexdigest()[:12]
    return f".{stem or 'x'}.mooncake-{key}.part"


@dataclass(frozen=True)
class _Found:
    """The newest note in a directory: its number (0 where there is none), whose it is, and whether that has ended."""

    number: int = 0
    owner: Owner | None = None
    ended: bool = False


class Workplace:
    """A directory that is this get's alone, until ``let_go`` or ``remove``."""

    def __init__(self, directory: Path, destination: Path, manifest: str, name: str, *, note_bytes: int = 0) -> None:
        """Make or take one in ``directory``, for a get of ``manifest`` to ``destination``.

        ``note_bytes`` are those that its journal notes of each chunk.
        Raises ``DestinationBusy`` where a get of this user's is at work on that destination, or ``StorageError``.
        """
        self.journal: Journal
        self.others: list[Path] = []
        """Partial forms of the same object that may be another get's: to be read, and never to be written."""
        self._destination = destination
        self._me = this_process(manifest)
        self._number = 0
        self._note_bytes = note_bytes
        self._live = ""
        for number in range(MAX_WORKPLACES):
            self.path = directory / work_name(destination.name, number)
            if self._take(name):
                if number or os.path.lexists(directory / work_name(destination.name, 1)):
                    self._remove_stale(directory, number)
                return
        raise StorageError(path=directory, detail=f"{MAX_WORKPLACES} gets to {destination.name} seem to be under way")

    @property
    def part(self) -> Path:
        """The partial form: a file or a directory."""
        return self.path / "part"

    @property
    def filling(self) -> bool:
        """Whether the destination is a directory that has been given some of the object's entries already."""
        return os.path.lexists(self.path / _FILLING)

    def begin_to_fill(self) -> None:
        """Remember that the destination is given the object's entries from now on. Raises ``OSError``."""
        os.close(os.open(self.path / _FILLING, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))

    def still_there(self) -> bool:
        """Whether the directory is still where it was made, and still this get's."""
        return os.path.lexists(self._note)

    @property
    def _note(self) -> Path:
        return self.path / f"owner.{self._number}"

    def _take(self, name: str) -> bool:
        """Whether this directory is ours now. Raises ``DestinationBusy`` or ``StorageError``."""
        made, locked = False, None
        try:
            made = _make(self.path)
            found = _Found() if made else _look(self.path)
            if found is None or not (made or found.number):
                return False
            try:
                locked = lock_journal(self.path / _JOURNAL, self._destination, create=made)
            except FileNotFoundError:
                return False  # its get is just beginning, or just removing it
            if not (made or self._may_take(found, locked)) or not self._sign(found.number + 1):
                locked.close()
                return False
            self._live = os.path.realpath(self.path)
            _live.add(self._live)
            self.journal = Journal(self.path / _JOURNAL, locked, self._me.manifest, name, note_bytes=self._note_bytes)
            if not made and not self.journal.resumed:
                remove(self.part)
                (self.path / _FILLING).unlink(missing_ok=True)
        except BaseException as error:
            if self._number:
                self.let_go()
            else:
                if locked is not None:
                    locked.close()
                if made:
                    _empty(self.path)  # without a note nobody could go on from it
            if isinstance(error, OSError):
                raise StorageError(path=error.filename or self.path, detail=words(error)) from None
            raise
        return True

    def _may_take(self, found: _Found, locked: LockedFile) -> bool:
        """Whether what is there may be gone on from. Raises ``DestinationBusy`` where a get is at work on it."""
        verdict = _verdict(self.path, found, self._me, locked)
        if verdict is Verdict.LIVE:
            raise DestinationBusy(path=self._destination)
        if verdict is Verdict.UNKNOWN and found.owner is not None and found.owner.manifest == self._me.manifest:
            self.others.append(self.part)
        return verdict is Verdict.FREE

    def _sign(self, number: int) -> bool:
        """Leave our note; whether nobody else left one of that number, or a later one. Raises ``OSError``."""
        note = self.path / f"owner.{number}"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(note, flags, 0o600)
        except FileExistsError:
            return False
        try:
            with open(descriptor, "wb", buffering=0):
                write_all(descriptor, self._me.to_bytes())
                ours = os.fstat(descriptor).st_uid == os.lstat(self.path).st_uid  # else somebody laid it out for us
        except BaseException:
            note.unlink()  # one that says nothing would keep everybody from what is here
            raise
        if not ours or any(n >= number for n, kind in _notes(self.path) if (n, kind) != (number, "owner")):
            note.unlink()
            return False
        self._number = number
        return True

    def _remove_stale(self, directory: Path, ours: int) -> None:
        """Remove what gets to this destination left that have long been dead, by the file system's own clock."""
        now = os.stat(self.path / _JOURNAL).st_mtime
        for number in range(MAX_WORKPLACES):
            path = directory / work_name(self._destination.name, number)
            if number > ours and not os.path.lexists(path):
                break  # they were made in turn
            with contextlib.suppress(OSError, DestinationBusy):
                if (
                    number == ours
                    or os.path.realpath(path) in _live
                    or now - (path / _JOURNAL).stat().st_mtime < STALE_SECONDS
                ):
                    continue
                locked = lock_journal(path / _JOURNAL, self._destination, create=False)
                try:
                    _empty(path)
                finally:
                    locked.close()

    def let_go(self) -> None:
        """Leave everything there for the next get, and say that this one has ended."""
        with contextlib.suppress(OSError):  # it then counts as ours as long as this process lives, and no longer
            self._note.rename(self.path / f"ended.{self._number}")
        if hasattr(self, "journal"):
            self.journal.close()
        _live.discard(self._live)

    def remove(self) -> None:
        """Remove it with all that is ours in it. What cannot be removed stays, and is no error: the object is whole."""
        self.journal.close()
        _empty(self.path)
        _live.discard(self._live)


def tidy(path: Path, manifest: str) -> None:
    """Remove what a get of this object left beside it, or in it, when it was killed after it had put that in place."""
    me = this_process(manifest)
    for directory in (path.parent, path):
        for number in range(MAX_WORKPLACES):
            work = directory / work_name(path.name, number)
            found = _look(work)
            if found is None or found.owner is None or found.owner.manifest != manifest:
                continue
            with contextlib.suppress(OSError, DestinationBusy):
                locked = lock_journal(work / _JOURNAL, path, create=False)
                try:
                    if _verdict(work, found, me, locked) is Verdict.FREE:
                        _empty(work)
                finally:
                    locked.close()


def being_filled(path: Path, manifest: str) -> Path | None:
    """Where a get of this object worked that was ended while it put the object's entries into ``path``; None without.

    That is a directory: the one that is filled, or its parent.
    """
    for directory in (path.parent, path):
        for number in range(MAX_WORKPLACES):
            work = directory / work_name(path.name, number)
            if os.path.lexists(work / _FILLING):
                found = _look(work)
                if found is not None and found.owner is not None and found.owner.manifest == manifest:
                    return directory
    return None


def _verdict(path: Path, found: _Found, me: Owner, locked: LockedFile) -> Verdict:
    """What may be done with a directory whose lock is held."""
    return judge(
        found.owner,
        me,
        ended=found.ended,
        locked=locked.lock.seen,
        local=_is_local(path),
        mine_is_live=os.path.realpath(path) in _live,
        runs=still_runs,
    )


def _is_local(path: Path) -> bool:
    """Whether this machine alone can use the file system on which ``path`` lies."""
    return Mounts().kind(Path(os.path.realpath(path))) in LOCAL


def _make(path: Path) -> bool:
    """Make a directory; false where something of that name is there. Raises ``OSError``."""
    try:
        path.mkdir(0o700)
    except FileExistsError:
        return False
    return True


def _notes(path: Path) -> list[tuple[int, str]]:
    """The notes in a directory, by number and kind. Raises ``OSError``."""
    matches = [_NOTE.fullmatch(name) for name in os.listdir(path)]
    return sorted((int(match[2]), match[1]) for match in matches if match)


def _look(path: Path) -> _Found | None:
    """What the newest note in a directory says; None where there is no directory of this user's."""
    try:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            return None
        notes = _notes(path)
        if not notes:
            return _Found()
        number = notes[-1][0]
        kinds = {kind for n, kind in notes if n == number}
        kind = "owner" if "owner" in kinds else "ended"
        descriptor = os.open(path / f"{kind}.{number}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            if os.fstat(descriptor).st_uid != status.st_uid:
                return None
            owner = Owner.from_bytes(stream.read(_MAX_NOTE_BYTES))
    except OSError:
        return None
    return _Found(number, owner, kind == "ended")


def _empty(path: Path) -> None:
    """Remove a workplace: what gets put there, and the directory unless somebody put something there, too."""
    with contextlib.suppress(OSError):
        remove(path / "part")
        for number, kind in _notes(path):
            (path / f"{kind}.{number}").unlink(missing_ok=True)
        for name in (_FILLING, _JOURNAL):
            (path / name).unlink(missing_ok=True)
        path.rmdir()
