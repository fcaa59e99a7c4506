"""A node on an event loop in a thread of its own, called from any other thread of the program.

A node ends in three ways, and its callers hear which: the program closes it (``Closed``), a part of it does nothing but
fail (``NodeEnded``, after which it has left the cluster by itself), or the interpreter exits, which closes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from engine.cuda.load import in_use
from engine.etcd.credentials import EtcdCredentials
from engine.net.closing import Closing
from engine.net.loop_thread import LoopThread
from p2pstore.errors import Closed, NodeEnded
from p2pstore.metadata.urls import open_store
from p2pstore.node import Node
from p2pstore.node_options import NodeOptions
from p2pstore.supervisor import Supervisor

START_SECONDS = 60.0
"""For the node to start."""

END_CALLS_SECONDS = 6.0
"""For the calls under way to end when it is closed."""

CLOSE_SECONDS = 10.0
"""For it to end."""

log = logging.getLogger(__name__)

T = TypeVar("T")


class NodeThread:
    """One node and its thread, both running once this is made. Thread-safe."""

    def __init__(self, what: str, options: NodeOptions, metadata: str, credentials: EtcdCredentials | None) -> None:
        """``what`` is what errors call it, and ``metadata`` a URL.

        Raises as ``open_store`` and ``Node.start``, ``TimeoutError``, and ``UsageError`` where the system refuses a
        thread. Nothing is left then.
        """
        self._what = what
        self._supervisor = Supervisor(self._cannot_go_on)
        self._loop = LoopThread(f"p2pstore-{options.name}", self._broken_off, what=what)
        self._closing = Closing(what, self._end)
        self._supervisor.hear_of_callbacks(self._loop.loop)
        self._leaving: asyncio.Task[None] | None = None
        self._node: Node | None = None
        self._loop.start()
        try:
            store = open_store(metadata, credentials)
            self._node = self.call(Node.start(options, store, self._supervisor), START_SECONDS)
        except BaseException:
            self.close()
            raise

    def node(self) -> Node:
        """The node, whose coroutines ``call`` runs. Raises ``Closed``, ``NodeEnded`` or ``ForkedProcess``."""
        self._closing.check()
        if self._node is None:
            raise Closed(what=self._what)
        if self._supervisor.fatal is not None:
            raise self._supervisor.fatal
        return self._node

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run ``work`` on the node's loop; see ``LoopThread.call``.

        Raises ``Closed`` or ``NodeEnded`` for whatever fails once the node has ended under it.
        """
        try:
            return self._loop.call(work, timeout)
        except Exception as fault:
            reason = self._reason(fault)
            if reason is fault:
                raise
            raise reason from fault

    def close(self) -> None:
        """Leave the cluster and end the thread; twice is harmless. See ``P2PStore.close``."""
        timeout = END_CALLS_SECONDS + 2 * CLOSE_SECONDS
        if not self._closing.close(timeout, wait=not self._loop.within) and not self._loop.within:
            log.warning("%s has not ended within %g s", self._what, timeout)

    def _reason(self, fault: Exception) -> Exception:
        """Why a call failed: whatever it was, where the node was ended under it, that it was."""
        if self._closing.begun and not isinstance(fault, Closed):
            return Closed(what=self._what)
        fatal = self._supervisor.fatal
        if fatal is None:
            return fault
        fatal.__cause__ = fault if fault is not fatal else None
        return fatal

    def _end(self) -> None:
        """The work of ``close``, in a thread of its own."""
        if not self._loop.end_calls(END_CALLS_SECONDS):
            log.warning("calls under way have not ended within %g s; they are left alone", END_CALLS_SECONDS)
        node, self._node = self._node, None
        if node is not None:
            try:
                self._loop.call(self._leave(node), CLOSE_SECONDS)
            except TimeoutError:
                log.warning("node %s has not ended within %g s; its lease runs out", node.name, CLOSE_SECONDS)
            except Exception:
                log.exception("node %s did not end as it should; its lease runs out", node.name)
        self._loop.stop(CLOSE_SECONDS)
        if (cuda := in_use()) is not None:
            cuda.trim()

    async def _leave(self, node: Node) -> None:
        """Close the node, or wait until it is closed."""
        if self._leaving is not None and self._leaving is not asyncio.current_task():
            await asyncio.wait({self._leaving})
        else:
            await node.close()

    def _broken_off(self, error: BaseException) -> None:
        self._supervisor.note("event loop", "store", error)

    def _cannot_go_on(self, _: NodeEnded) -> None:
        """The supervisor's word: leave the cluster, so that nobody is sent here. On the loop's thread."""
        if self._node is not None:
            self._leaving = self._loop.loop.create_task(self._leave(self._node))
