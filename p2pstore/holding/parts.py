"""The parts of a running node, as its operations get them: made once, complete, and never changed afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.net.rate import RateLimit
from engine.serving.segment_server import SegmentServer
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.cluster.records import NodeRecord
from p2pstore.cluster.registry import Registry
from p2pstore.cluster.wrong_bytes import WrongBytes
from p2pstore.holding.cache import Cache
from p2pstore.holding.checker import Checker
from p2pstore.holding.holdings import Holdings
from p2pstore.holding.oids import Oids
from p2pstore.holding.part_copies import PartCopies
from p2pstore.holding.publisher import Publisher
from p2pstore.holding.source_watcher import SourceWatcher
from p2pstore.metrics.counts import Counts
from p2pstore.node_options import NodeOptions


@dataclass(frozen=True)
class Parts:
    """What a node is made of. The node owns these and ends them; an operation uses the few that it needs.

    ``record`` is what others know of the node. The limits are shared by all that it sends, and by all that it gets.
    ``doubts`` say why others may not reach the address that the record tells them.
    """

    options: NodeOptions
    record: NodeRecord
    engine: SegmentServer
    client: PeerClient
    registry: Registry
    holdings: Holdings
    publisher: Publisher
    part_copies: PartCopies
    cache: Cache
    checker: Checker
    watcher: SourceWatcher
    wrong_bytes: WrongBytes
    oids: Oids
    upload_limit: RateLimit
    download_limit: RateLimit
    doubts: tuple[str, ...] = ()
    counts: Counts = field(default_factory=Counts)

    @property
    def name(self) -> str:
        """The node's name."""
        return self.record.node
