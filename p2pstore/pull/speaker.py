"""What a pull says to the sources that grant: that it takes a grant or declines it, is done, has room again.

Whoever plans hands words over, one by one; the event loop says them, on the connection over which a source tells its
news. For one of an earlier version there is a queue of them and a task that says them over one request, which lasts as
long as its feed. A source that does not hear is begun anew, and one that has
never sent anything is not spoken to a second time: what lies between may take no body without an end.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable

from p2pstore.cluster.batch_queue import BatchQueue
from p2pstore.cluster.peer_client import PeerClient
from p2pstore.cluster.peer_talk import Say
from p2pstore.cluster.words import to_line
from p2pstore.errors import MooncakeError
from p2pstore.swarm.events import Word

log = logging.getLogger(__name__)

MAX_UNSAID = 1024
"""Words that wait to be said to one source. It gives no grant before the last was answered, unless it means ill."""


class Speaker:
    """The words of one pull. All but ``say`` is called on the event loop where it is made."""

    def __init__(
        self, client: PeerClient, digest: str, *, delivered: Callable[[str], bool], begin_anew: Callable[[str], None]
    ) -> None:
        """``digest`` is the object's. ``delivered``: whether a node has sent anything; ``begin_anew`` ends a feed."""
        self._client = client
        self._digest = digest
        self._delivered = delivered
        self._begin_anew = begin_anew
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._unsaid: deque[Word] = deque()
        self._saying = False  # the loop is about to say them
        self._words: dict[str, BatchQueue[bytes]] = {}  # what is to be said, by node
        self._over_lines: dict[str, Say] = {}  # by node, of those that hear on the connection of their news
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._unheard: set[str] = set()  # nodes that never sent anything, and did not hear what was said to them

    def hears(self, node: str) -> bool:
        """Whether a node may be spoken to."""
        return node not in self._unheard

    def say(self, word: Word) -> None:
        """Say something to a source that grants, at once. Any thread."""
        self._unsaid.append(word)
        if threading.get_ident() == self._thread:
            self._say()
        elif not self._saying:
            self._saying = True
            self._loop.call_soon_threadsafe(self._say)

    def _say(self) -> None:
        self._saying = False  # first: what is added from now on may come too late for this
        while self._unsaid:
            word = self._unsaid.popleft()
            say = self._over_lines.get(word.peer)
            if say is not None:
                if not say(to_line(word)):
                    self._begin_anew(word.peer)
                continue
            words = self._words.get(word.peer)
            if words is None:  # it has gone, and its grants with it
                continue
            if words.full:
                self._begin_anew(word.peer)
            else:
                words.put(to_line(word))

    def begin(self, node: str, control: str, listener: str) -> None:
        """A source that grants is there, and knows us by ``listener``."""
        self._words[node] = BatchQueue(MAX_UNSAID)
        self._tasks[node] = asyncio.create_task(self._speak(node, control, listener), name=f"words to {node}")

    def begin_over(self, node: str, say: Say) -> None:
        """A source that grants is there, and hears what it is told by ``say``."""
        self._over_lines[node] = say

    async def end(self, node: str) -> None:
        """Say nothing more to a source, if it was spoken to."""
        self._over_lines.pop(node, None)
        self._words.pop(node, None)
        task = self._tasks.pop(node, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _speak(self, node: str, control: str, listener: str) -> None:
        """Say to a source what there is to say to it, until its feed ends."""
        words = self._words[node]

        async def lines() -> AsyncIterator[bytes]:
            yield b"\n"  # the request is not sent before the first of its body
            while True:
                yield b"".join(await words.take())

        try:
            await self._client.say(control, self._digest, listener, lines)
        except MooncakeError as error:
            log.info("%s", error)
        except Exception:
            log.exception("speaking to %s failed", node)
        if not self._delivered(node):
            self._unheard.add(node)
        self._begin_anew(node)
