"""What a client does by itself: it tells the master that it lives, mounts its memory again, and finds the master anew.

While the master answers there is a ping a second; where it does not, attempts follow one another with pauses that grow.
A second thread does what the master asks for that may take long: copies of replicas must not hold up the pings.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from engine.net.backoff import Backoff
from engine.net.threads import Failure, Threads
from engine.rpc.codes import Code
from engine.rpc.messages import ClientStatus, Ping, Segment
from p2pstore.kv.client.master import Master
from p2pstore.kv.errors import MasterUnavailable

PING_EVERY = 1.0
"""Seconds between two pings, as upstream's clients send them: a master waits ten before it forgets a client."""

RECONNECT = Backoff(0.05, 1.0, jitter=(0.8, 1.2))
"""Pauses between attempts to find the master; spread, since all its clients look for it at once."""

END_SECONDS = 5.0
"""For the threads to end: a look for the master takes no longer, and all else is broken off before."""

log = logging.getLogger(__name__)


class Heart:
    """The background of one client. It beats from ``start`` to ``stop``."""

    def __init__(
        self,
        master: Master,
        segments: Callable[[], list[Segment]],
        every_beat: Callable[[], None],
        work: Callable[[threading.Event], None],
    ) -> None:
        """``segments`` are what is to be mounted; ``every_beat`` is called after each ping that was answered.

        ``work`` does what the master asks for; it is called as often, and may raise ``MasterUnavailable``. It is given
        what is set at the end.
        """
        self._master = master
        self._work = work
        self._segments = segments
        self._every_beat = every_beat
        self._threads = Threads()
        self._ending = threading.Event()
        self._missed = 0
        self.remounts = 0
        """How often the master has asked to mount again."""

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What went wrong that nobody foresaw; it beats on."""
        return self._threads.failures

    def start(self) -> None:
        """Raises ``UsageError`` where the system refuses a thread."""
        self._threads.must_serve("store heartbeat", self._beat)
        self._threads.must_serve("store tasks", self._do_work)

    def stop(self) -> None:
        """Begin to end it. Twice is harmless."""
        self._ending.set()
        self._master.lost.set()  # it may be waiting for that
        self._threads.stop()

    def join(self) -> None:
        """Wait for its end, once the master and the data plane are closed, where it may be waiting for something."""
        if not self._threads.join(END_SECONDS):
            log.warning("the background of a client of the store has not ended in %g s", END_SECONDS)

    def pulse(self) -> bool:
        """One ping, and what it asks for; whether the master answered."""
        try:
            answer = self._master.ping()
            if isinstance(answer, Ping) and answer.status == ClientStatus.NEED_REMOUNT:
                self._remount()
            elif isinstance(answer, Code):
                log.warning("the store's master refuses a ping: %s", answer.sentence)
        except MasterUnavailable:
            return False
        return True

    def _beat(self) -> bool:
        if self._ending.is_set():
            return False
        if self._master.why_not and not self._master.revive():
            self._missed += 1
            self._ending.wait(RECONNECT.after(self._missed))
            return True
        if self._missed:
            log.warning("the store's master at %s is back", self._master.address)
        self._missed = 0
        if self.pulse():
            self._every_beat()
            self._master.lost.wait(PING_EVERY)
        return True

    def _do_work(self) -> bool:
        if self._ending.wait(PING_EVERY):
            return False
        if not self._master.why_not:
            with contextlib.suppress(MasterUnavailable):
                self._work(self._ending)
        return True

    def _remount(self) -> None:
        segments = self._segments()
        code = self._master.remount(segments)
        if code is Code.OK:
            self.remounts += bool(segments)
        else:
            log.warning("the store's master does not take this client's memory again: %s", code.sentence)
