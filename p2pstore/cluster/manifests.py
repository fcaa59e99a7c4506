"""Asking several peers for one manifest: the first good answer counts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from p2pstore.cluster.peer_client import PeerClient
from p2pstore.errors import PeerUnreachable, RemoteError, SecretRefused
from p2pstore.objects.manifest import Manifest

log = logging.getLogger(__name__)

HEDGE_SECONDS = 1.0
"""A holder that has not sent the manifest after so long is not waited for: another is asked too."""


async def first_that_answers(
    client: PeerClient, controls: Sequence[tuple[str, str]], digest: str, note: Callable[[str], None]
) -> Manifest:
    """The manifest from the first of the (node, control address) pairs that sends a good one.

    They are asked in order, each as soon as the one before failed or kept silent for ``HEDGE_SECONDS``. Raises the
    last ``RemoteError`` or ``SecretRefused`` when none sends one.
    """
    last: RemoteError | SecretRefused = PeerUnreachable(peer="anyone", detail="nobody holds the object")
    left = list(reversed(controls))
    asked: dict[asyncio.Task[Manifest], str] = {}
    try:
        while left or asked:
            if left:
                node, control = left.pop()
                asked[asyncio.create_task(client.manifest(control, digest))] = node
            patience = HEDGE_SECONDS if left else None
            done, _ = await asyncio.wait(asked, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                node = asked.pop(task)
                try:
                    return task.result()
                except (RemoteError, SecretRefused) as error:
                    log.warning("%s: %s", node, error)
                    if left or asked:
                        note(f"{error}; asking another")
                    last = error
        raise last
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)  # one has answered: nobody needs to know how these end
