"""What an agent that starts waits for: its metadata server, and the address that it is to listen on.

At the boot of a machine neither need be there yet: etcd starts later, names do not resolve yet, an interface has no
address.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from pathlib import Path

from engine.errors import MooncakeError, NoSuchAddress
from engine.files.writing import replace_file
from engine.net import sockets
from engine.net.backoff import Backoff
from engine.net.listening import address_of
from engine.net.published import published
from p2pstore.agent.home import Home
from p2pstore.errors import MetadataUnavailable
from p2pstore.metadata.store import MetadataStore
from p2pstore.metadata.urls import servers_of
from p2pstore.node_options import NodeOptions

log = logging.getLogger("mooncake")

PAUSES = Backoff(0.5, 5.0)
"""Between two attempts."""

ADDRESS_SECONDS = 60.0
"""An address that has not come for so long was a mistake: the start fails, and whoever keeps the agent tries again."""

SAY_SECONDS = 60.0
"""Between two lines in the log of one and the same reason."""


async def until_ready(home: Home, options: NodeOptions, store: MetadataStore, patience: float | None) -> None:
    """Wait until the metadata server answers and the address is there, ``patience`` seconds at the most.

    Raises what was wrong when that ends, and at once what waiting does not mend; the store is then closed.
    """
    loop = asyncio.get_running_loop()
    began = said = loop.time()
    last = ""
    attempts = 0
    try:
        while True:
            try:
                _check_address(options, store.url)
                await store.check()
            except (MetadataUnavailable, NoSuchAddress) as error:
                now = loop.time()
                limit = ADDRESS_SECONDS if isinstance(error, NoSuchAddress) else None
                bounds = [bound for bound in (patience, limit) if bound is not None]
                if bounds and now - began >= min(bounds):
                    raise
                if str(error) != last or now - said >= SAY_SECONDS:
                    last, said = str(error), now
                    _say(home.waiting, error)
            else:
                break
            attempts += 1
            await asyncio.sleep(PAUSES.after(attempts))
    except BaseException:
        await store.close()
        raise
    finally:
        with contextlib.suppress(OSError):
            home.waiting.unlink(missing_ok=True)
    if last:
        log.info("waited %.0f s", loop.time() - began)


def _check_address(options: NodeOptions, url: str) -> None:
    host = address_of(options.host)
    sockets.listen(host, 0).close()
    if not options.advertise:
        published(host, servers_of(url))


def _say(file: Path, error: MooncakeError) -> None:
    log.warning("waiting: %s", error)
    with contextlib.suppress(OSError):  # the log has it
        replace_file(file, json.dumps({"for": str(error)}).encode())
