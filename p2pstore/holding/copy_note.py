"""What is noted of a copy besides what it is: since when it is here, when it was used, and whether it is to stay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields

from engine.files.stamps import NO_NUMBER, FileStamp
from engine.memory.file_spans import FileSpan, FileSpans


@dataclass
class CopyNote:
    """Times are seconds since the epoch; 0 where nobody knows.

    ``wrote`` is the seal of the files as this agent wrote them, at ``real``, their path without any link; empty for
    files that it did not write, or cannot know again. ``own_root`` says that it made the directory, too.
    """

    since: float = 0.0
    used: float = 0.0
    pinned: bool = False
    wrote: str = ""
    real: str = ""
    own_root: bool = False

    def to_text(self) -> str:
        """As the catalog has it."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: object) -> CopyNote:
        """The inverse of ``to_text``; of what is none of ours nothing is known, so that nothing is done to the copy."""
        try:
            found = json.loads(str(text))
            note = cls(**{field.name: found[field.name] for field in fields(cls) if field.name in found})
        except (ValueError, TypeError):
            return cls()
        numbers = isinstance(note.since, (int, float)) and isinstance(note.used, (int, float))
        flags = isinstance(note.pinned, bool) and isinstance(note.own_root, bool)
        return note if numbers and flags and isinstance(note.wrote, str) and isinstance(note.real, str) else cls()

    def inherit(self, old: CopyNote) -> None:
        """Take over what was noted of the same content at the same place, under the same name."""
        self.since = old.since or self.since
        self.used = max(self.used, old.used)
        self.pinned |= old.pinned
        if not self.wrote:
            self.wrote, self.real, self.own_root = old.wrote, old.real, old.own_root


def seal(spans: Sequence[FileSpan]) -> str:
    """What tells whether files are still the same, and nobody wrote to them, touched or linked them.

    The device's number does not count: after a restart it may be another. Empty where inode numbers do not last.
    """
    digest = hashlib.sha256()
    for stamp in _stamps(spans):
        if stamp is None or NO_NUMBER in {stamp.inode, stamp.ctime_ns}:
            return ""
        digest.update(FileStamp(0, stamp.inode, stamp.size, stamp.mtime_ns, stamp.ctime_ns).packed())
    return digest.hexdigest()


def inodes(spans: Sequence[FileSpan]) -> Iterator[tuple[int, int]]:
    """Device and inode of each file that has them."""
    if isinstance(spans, FileSpans):
        yield from ((dev, inode) for dev, inode, *_ in FileStamp.unpack_all(spans.stamps) if inode != NO_NUMBER)
        return
    for stamp in _stamps(spans):
        if stamp is not None and stamp.inode != NO_NUMBER:
            yield stamp.dev, stamp.inode


def _stamps(spans: Sequence[FileSpan]) -> Iterator[FileStamp | None]:
    return (span.stamp for span in spans)
