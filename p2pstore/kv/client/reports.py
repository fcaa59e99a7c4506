"""What befell this client's transfers is told: for the order of its own next ones, in the log, and to the master.

A master of ours then sends nobody there, and forgets a client that has ended at once, where it would wait for its
pings. Upstream's has no such call, and is not bothered.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from typing import TYPE_CHECKING

from p2pstore.kv.errors import MasterUnavailable

if TYPE_CHECKING:
    from engine.errors import MooncakeError
    from p2pstore.kv.client.master import Master
    from p2pstore.kv.client.replicas import DeadEndpoints

log = logging.getLogger(__name__)


class Reports:
    """Of one client. Thread-safe."""

    def __init__(self, dead: DeadEndpoints, master: Master) -> None:
        self.dead = dead
        self._master = master

    def failed(self, endpoint: str, error: MooncakeError) -> None:
        """Bytes could not be brought from an endpoint, or taken there. Told once, until that is tried anew."""
        if not self.dead.failed(endpoint, str(error)):
            return
        log.warning("%s does not give or take what lies there of the pool: %s", endpoint, error)
        with contextlib.suppress(MasterUnavailable):  # which whoever calls next will find
            self._master.report_unreachable(endpoint, refused=error.fields.get("errno") == errno.ECONNREFUSED)

    def succeeded(self, endpoint: str) -> None:
        """They could."""
        self.dead.succeeded(endpoint)
