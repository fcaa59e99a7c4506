"""What sources say to complaints: that a chunk of theirs is wrong with them, too, or that it is right there.

A complaint is sent when a chunk was wrong, and a moment later its source is given up: so its address is noted while it
is followed, and the answer is heard even when the pull is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from p2pstore.cluster.peer_client import PeerClient
from p2pstore.errors import MooncakeError

log = logging.getLogger(__name__)


class SentComplaints:
    """The complaints of one pull. All but ``complain`` is called on the event loop where it is made."""

    def __init__(self, client: PeerClient, digest: str, note: Callable[[str], None]) -> None:
        """``digest`` is the object's; ``note`` takes lines for the user."""
        self._client = client
        self._digest = digest
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._followed: dict[str, str] = {}  # the control address, by node
        self._asking: set[asyncio.Task[None]] = set()

    def follow(self, node: str, control: str) -> None:
        """A source is there."""
        self._followed[node] = control

    def leave(self, node: str) -> None:
        """It is followed no more."""
        self._followed.pop(node, None)

    def complain(self, node: str, chunk: int) -> None:
        """Tell a source that its bytes of a chunk were wrong, and the user what it says to that. Any thread."""
        self._loop.call_soon_threadsafe(self._ask, node, chunk)

    def _ask(self, node: str, chunk: int) -> None:
        control = self._followed.get(node)
        if control is not None:
            asking = asyncio.create_task(self._complain(node, control, chunk), name=f"complaint to {node}")
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)

    async def _complain(self, node: str, control: str, chunk: int) -> None:
        try:
            wrong = await self._client.complain(control, self._digest, chunk)
        except MooncakeError as error:
            log.info("%s", error)
        except Exception:
            log.exception("complaining to %s failed", node)
        else:
            if wrong:
                self._note(f"{node} has read its chunk {chunk} again: it is wrong there, too, and is served no more")
            elif wrong is False:
                self._note(
                    f"{node} has read its chunk {chunk} again: it is right there; something on the way changed it"
                )

    async def heard(self, seconds: float) -> None:
        """Wait for the answers, so long at most."""
        if self._asking:
            await asyncio.wait(self._asking, timeout=seconds)

    async def end(self) -> None:
        """Wait for no answer any more."""
        asking = list(self._asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)  # each has logged what went wrong
