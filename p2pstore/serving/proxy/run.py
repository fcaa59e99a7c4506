"""Runs a proxy from its options to the signal that ends it."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable

from engine import signals
from engine.net import addresses, sockets
from p2pstore.errors import NodeEnded
from p2pstore.serving.proxy.options import GRACE_SECONDS, Options
from p2pstore.serving.proxy.server import ProxyServer

GC_THRESHOLDS = (20_000, 20, 100)
"""For the garbage collector: requests leave some in circles, and what lives long is not looked at often."""


async def serve(options: Options, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGHUP, which let requests end first, or SIGINT. ``tell`` is called with the URL.

    Raises ``UsageError`` (``PortTaken``, ``NoSuchAddress``) where it cannot listen, and ``NodeEnded`` when a part of it
    that it cannot be without does not work.
    """
    loop = asyncio.get_running_loop()
    gently, at_once = asyncio.Event(), asyncio.Event()

    def terminated() -> None:
        (at_once if gently.is_set() else gently).set()

    def interrupted() -> None:
        gently.set()
        at_once.set()

    def fatal(_: NodeEnded) -> None:
        interrupted()

    for number in signals.ending():
        loop.add_signal_handler(number, interrupted if number == signal.SIGINT else terminated)
    server = ProxyServer(options, fatal)
    listener = sockets.listen(host, port)
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        await server.start(listener)
        tell(f"http://{addresses.join(host or '0.0.0.0', listener.getsockname()[1])}")  # noqa: S104 - shown
        await gently.wait()
        draining = asyncio.ensure_future(server.drain(0.0 if at_once.is_set() else GRACE_SECONDS))
        hurried = asyncio.ensure_future(at_once.wait())
        await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, hurried):
            task.cancel()
        await asyncio.gather(draining, hurried, return_exceptions=True)
    finally:
        await server.close()
        listener.close()
    if server.supervisor.fatal is not None:
        raise server.supervisor.fatal
