"""What a worker's trouble means: for its source, for the user, and for the pull."""

from __future__ import annotations

import logging
from collections.abc import Callable

from engine.errors import MooncakeError, RangeRefused, RemoteError, TransportUnavailable
from p2pstore.errors import ChunkMismatch
from p2pstore.pull.destination import Mismatch
from p2pstore.pull.faults import Faults
from p2pstore.pull.workers import Broke, Member, ToldToStop
from p2pstore.swarm.events import FetchFault

log = logging.getLogger(__name__)


class FaultSorter:
    """Sorts what workers report. A source's fault is noted in ``faults``; what is no source's fault ends the pull."""

    def __init__(
        self,
        on_wrong: Callable[[str, int], None],
        note: Callable[[str], None],
        fail: Callable[[MooncakeError], None],
    ) -> None:
        """``on_wrong`` hears of a source's wrong bytes for a chunk, ``note`` is given lines for the user."""
        self.faults = Faults()
        self._on_wrong = on_wrong
        self._note = note
        self._fail = fail

    def sort(self, report: Broke) -> FetchFault:
        """What a worker's trouble means for its source."""
        error, member = report.error, report.worker.member
        node = member.source.node
        if isinstance(error, Mismatch):
            self._mismatch(node, error)
            return FetchFault.CORRUPT
        if isinstance(error, TransportUnavailable):
            return self._next_transport(member, error, report.transport)
        if isinstance(error, RemoteError) and report.cancelled:
            log.info("%s is slow; its chunks are asked of others", node)
            return FetchFault.SLOW
        if isinstance(error, RemoteError):
            self.faults.add(node, error)
            log.warning("%s", error)
            return FetchFault.GONE if isinstance(error, RangeRefused) else FetchFault.LOST
        self._fail_of_ours(error)
        return FetchFault.UNTRIED

    def sort_late(self, report: Broke) -> None:
        """The same, when the source's workers were told to stop already."""
        error = report.error
        if isinstance(error, Mismatch):
            self._on_wrong(report.worker.member.source.node, error.chunk)
        elif not isinstance(error, (RemoteError, TransportUnavailable, ToldToStop)):
            self._fail_of_ours(error)

    def _fail_of_ours(self, error: Exception) -> None:
        if not isinstance(error, MooncakeError):
            log.error("a worker of a pull failed", exc_info=error)
            error = MooncakeError(detail=f"a worker of the pull failed: {error!r}")
        self._fail(error)

    def _mismatch(self, node: str, error: Mismatch) -> None:
        fault = ChunkMismatch(peer=node, chunk=error.chunk)
        self.faults.add(node, fault)
        self._on_wrong(node, error.chunk)
        log.error("%s; the peer is banned from this get", fault)
        self._note(f"{fault}; it is not asked any more")

    def _next_transport(self, member: Member, error: TransportUnavailable, following: str | None) -> FetchFault:
        if following is None:
            self.faults.add(member.source.node, error)
            return FetchFault.GONE
        if following != member.told:
            member.told = following
            self._note(f"{error}; going on over {following}")
        return FetchFault.UNTRIED
