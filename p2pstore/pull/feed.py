"""What one holder tells, handed to a pull as it comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from p2pstore.cluster.news import Availability, Queued, Shared
from p2pstore.cluster.news_lines import Told
from p2pstore.cluster.peer_talk import Say
from p2pstore.cluster.records import NodeRecord, peer_address
from p2pstore.pull.owner import Pull
from p2pstore.pull.speaker import Speaker
from p2pstore.pull.workers import Source
from p2pstore.swarm.gateway import Claim
from p2pstore.swarm.granter import Grant


class Feed:
    """Of one holder, for as long as it is listened to without a break."""

    def __init__(
        self,
        pull: Pull,
        speaker: Speaker,
        record: NodeRecord,
        transports: tuple[str, ...],
        away: int,
        on_answer: Callable[[], None],
        on_queued: Callable[[], None],
    ) -> None:
        """``away`` is its distance. ``on_answer`` is called when it tells what it has, ``on_queued`` when we wait."""
        self._pull = pull
        self._speaker = speaker
        self._record = record
        self._transports = transports
        self._away = away
        self._on_answer = on_answer
        self._on_queued = on_queued
        self._speaks = False
        self.leads: set[int] = set()
        """The shares of chunks of whose gateways it says that it is one."""

    def hear(self, told: Told, say: Say | None = None) -> None:
        """It tells something; ``say`` speaks to it where it hears on the same connection."""
        node = self._record.node
        if isinstance(told, Grant):
            self._pull.granted(Grant(node, told.number, told.run, told.window, told.lead))
        elif isinstance(told, list):
            self._pull.has(node, told, grants=self._speaks)
        elif isinstance(told, Availability):
            self._answers(told, say)
        elif isinstance(told, Claim):
            (self.leads.add if told.own else self.leads.discard)(told.share)
            self._pull.claims(node, told)
        elif isinstance(told, Shared):
            self._pull.shared(node, told.shared)
        elif isinstance(told, Queued):
            self._on_queued()

    def _answers(self, told: Availability, say: Say | None) -> None:
        record = self._record
        source = Source(record.node, replace(peer_address(record), key=told.key), told.address, self._transports)
        self._on_answer()
        if told.grants:
            self._speaks = True
            if say is not None:
                self._speaker.begin_over(record.node, say)
            else:
                self._speaker.begin(record.node, record.control, told.listener)
        self._pull.add(source, told.have, self._away, shared=told.shared, grants=told.grants)
