"""Serves an agent's metrics to Prometheus, on an address of its own, over plain HTTP.

::

    GET /metrics    in the text format, or as OpenMetrics where the ``Accept`` header asks for it
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from engine.net import addresses, sockets
from engine.net.http_server import HttpServer, let_in
from engine.net.listening import address_of
from p2pstore.agent.metrics import METRICS
from p2pstore.errors import PackageMissing
from p2pstore.peers.http_log import http_log
from p2pstore.settings.keys import AGENT_METRICS_PORT

if TYPE_CHECKING:
    from p2pstore.node import Node

log = logging.getLogger(__name__)

PATH = "/metrics"

SHUTDOWN_SECONDS = 1.0
"""For requests under way at the end."""


class MetricsServer:
    """Listens from its making on, and answers from ``start`` to ``close``."""

    def __init__(self, place: str) -> None:
        """``place`` is as the setting ``metrics`` has it.

        Raises ``PackageMissing``; ``UsageError`` where the port cannot be had; ``NoSuchAddress``.
        """
        try:
            from p2pstore.metrics import exposition  # noqa: PLC0415 - an extra
        except ImportError:
            package, install = "the package prometheus-client", "mooncake-cli[metrics]"
            raise PackageMissing(what="the setting metrics", package=package, install=install) from None
        self._exposition = exposition
        host, port = addresses.given_place(place, AGENT_METRICS_PORT)
        self._listener = sockets.listen(address_of(host), port)
        self._node: Node | None = None
        app = web.Application(client_max_size=1)
        app.router.add_get(PATH, self._metrics)
        self._server = HttpServer(app, logger=http_log, shutdown_seconds=SHUTDOWN_SECONDS, open_to_all=True)

    @property
    def url(self) -> str:
        """Where Prometheus finds them; of a wildcard it is the wildcard's."""
        return f"http://{addresses.join(*self._listener.getsockname()[:2])}{PATH}"

    async def start(self, node: Node) -> None:
        """Answer from now on, with what ``node`` counts."""
        self._node = node
        await self._server.start(self._listener)
        log.info("metrics are served at %s", self.url)

    async def close(self) -> None:
        """Stop listening; twice is harmless."""
        started, self._node = self._node, None
        if started is not None:
            await self._server.close()
        self._listener.close()

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        let_in(request)
        if self._node is None:
            raise web.HTTPServiceUnavailable(text="the agent ends")
        families = self._exposition.families_of(METRICS, self._node)
        body, content_type = self._exposition.expose(families, request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})
