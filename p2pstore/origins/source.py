"""What an origin has: its files, and what it says of each; how they are read is each kind's own business."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from p2pstore.objects.selection import Selection


@dataclass(frozen=True)
class OriginFile:
    """A file of an origin: its path in the object, empty where it is all of it, and where it is read.

    ``version`` is another one when its content is: an ETag, or times; all that a cluster reads of it is of one.
    ``validator`` is what of it the origin is asked to compare, if it does. ``hashes`` are (kind, hexadecimal digits).
    """

    path: str
    place: str
    size: int
    version: str
    validator: str = ""
    hashes: tuple[tuple[str, str], ...] = ()
    ranges: bool = True
    """Whether the origin gives out a part of it, too."""
    resumes: bool = True
    """Whether what comes after it broke off is known to be of the same version."""
    name: str = ""
    """What the whole is called in the cluster, where its origin names it by content; else that is made of the rest."""


class Source(Protocol):
    """One origin. Close it in the end."""

    @property
    def reads(self) -> bool:
        """Whether this node may read it itself; else what other nodes have of it is all there is."""

    @property
    def revision(self) -> str:
        """What it calls its files as ``files`` told them; empty where it has no word for that."""

    async def files(self, selection: Selection) -> Sequence[OriginFile]:
        """Its files. Raises ``OriginNotFound``, ``OriginRefused``, ``OriginUnavailable``, or as ``scan``."""

    def stream(self, file: OriginFile, begin: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a file from ``begin`` to ``end``. Raises as ``files``, also in the middle.

        Raises ``OriginChanged`` where the file is no longer of that version.
        """

    async def sure(self, file: OriginFile) -> bool:
        """Whether ``hashes`` are those of a file beyond doubt; it is asked where they differ. Raises as ``files``."""

    async def close(self) -> None:
        """Begin to read no more; what others of this node still read of it goes on to its end."""
