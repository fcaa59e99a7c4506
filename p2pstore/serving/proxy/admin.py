"""What those who look after a proxy ask of it: health, status, metrics, and instances that come and go."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiohttp import hdrs, web

from p2pstore.errors import UsageError
from p2pstore.serving.events import Kind
from p2pstore.serving.proxy import failures
from p2pstore.serving.proxy.bodies import Bodies, Refused
from p2pstore.serving.proxy.fleet import KINDS, BadInstance, Place, parse_bootstrap, parse_endpoint, parse_instance
from p2pstore.serving.proxy.parts import Parts
from p2pstore.serving.proxy.turns import Turns
from p2pstore.serving.proxy.upstream import Problem
from p2pstore.supervisor import Supervisor

ADMIN_KEY = "X-API-Key"


class Admin:
    """Answers them."""

    def __init__(self, parts: Parts, turns: Turns, bodies: Bodies, supervisor: Supervisor) -> None:
        self.ending = False
        """Whether the proxy takes no more requests."""
        self._parts, self._turns, self._bodies, self._supervisor = parts, turns, bodies, supervisor
        self._fleet = parts.keeper.fleet
        self._began = parts.clock()

    def add_to(self, app: web.Application) -> None:
        """Serve what is asked of it there."""
        app.router.add_get("/health", self.health)
        app.router.add_get("/healthcheck", self.health)
        app.router.add_get("/status", self.status)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/instances/add", self.add)
        app.router.add_post("/instances/remove", self.remove)

    async def health(self, _: web.Request) -> web.StreamResponse:
        """Whether requests can be served."""
        ready = self._fleet.ready and not self.ending
        document = {
            "status": "ok" if ready else "ending" if self.ending else "no instances",
            "prefill_instances": len(self._fleet.of(Kind.PREFILL)),
            "decode_instances": len(self._fleet.of(Kind.DECODE)),
        }
        return web.json_response(document, status=200 if ready else 503)

    async def status(self, _: web.Request) -> web.StreamResponse:
        """What it has and does."""
        return web.json_response(self.report())

    def report(self) -> dict[str, Any]:
        """What it has and does."""
        now = self._parts.clock()
        nodes = {name: [one.place.address for one in self._fleet.of(kind)] for name, kind in KINDS.items()}
        policy, dispatcher = self._parts.options.policy, self._parts.dispatcher
        return {
            "prefill_node_count": len(nodes["prefill"]),
            "decode_node_count": len(nodes["decode"]),
            "prefill_nodes": nodes["prefill"],
            "decode_nodes": nodes["decode"],
            "model": self._parts.options.model,
            "scheduling": policy.placement.value,
            "admission": policy.admission.value,
            "kv": "p2p" if self._parts.options.p2p else "store",
            "seconds": round(now - self._began, 1),
            "running": self._turns.running,
            "waiting": self._turns.waiting,
            "instances": [member.to_json(now, dispatcher.ejected_since(member.name)) for member in self._fleet],
            "expected": {
                "prefill_seconds": dispatcher.policy.costs.prefill.cost._asdict(),
                "decode_step_seconds": dispatcher.policy.costs.decode.cost._asdict(),
            },
            "tasks": [task for task in self._supervisor.report() if task["failures"]],
        }

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """For Prometheus."""
        try:
            from p2pstore.serving.proxy import metrics  # noqa: PLC0415 - an extra
        except ImportError:
            said = "metrics need prometheus-client: pip install 'mooncake-cli[proxy]'"
            raise Refused(failures.error(501, said, kind=failures.SERVER, code="no_metrics")) from None
        accept = request.headers.get(hdrs.ACCEPT, "")
        body, content_type = metrics.render(self._parts.stats, self._fleet, self._turns, accept)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

    async def add(self, request: web.Request) -> web.StreamResponse:
        """One more instance."""
        kind, place, document = await self._named(request)
        assert kind is not None  # noqa: S101 - see ``_named``
        try:
            await self._parts.keeper.add_verified(_with(place, document), kind)
        except (BadInstance, Problem, UsageError) as error:
            said = f"{place.address} is not added: {error}"
            raise Refused(failures.error(400, said, code="bad_instance", param="instance")) from None
        return web.json_response({"message": f"Added {document['instance']} to {kind.value}_instances."})

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """One less, once what it has is done."""
        kind, place, document = await self._named(request)
        found = self._parts.keeper.find(kind, place)
        if not found:
            said = f"{place.address} is no {kind.value if kind else ''} instance of this proxy"
            raise Refused(failures.error(404, said, code="no_such_instance", param="instance"))
        for member in found:
            self._parts.keeper.remove(member)
        names = ", ".join(f"{member.kind.value}_instances" for member in found)
        return web.json_response(
            {
                "message": f"Removed {document['instance']} from {names}.",
                "running": sum(member.running for member in found),
            }
        )

    async def _named(self, request: web.Request) -> tuple[Kind | None, Place, dict[str, Any]]:
        """The instance that somebody with the key names. Raises ``Refused``."""
        self._see_the_key(request)
        body = await self._bodies.read(request)
        self._bodies.release(body)
        document = failures.parsed(body)
        if document is None:
            raise Refused(failures.error(400, "the body is no JSON object"))
        kind = document.get("type")
        named = KINDS.get(kind) if isinstance(kind, str) else None
        if named is None and (kind is not None or request.path == "/instances/add"):
            raise Refused(failures.error(400, f"'type' is one of {', '.join(KINDS)}", param="type"))
        instance = document.get("instance")
        try:
            return named, parse_instance(instance if isinstance(instance, str) else ""), document
        except BadInstance as error:
            raise Refused(failures.error(400, str(error), param="instance")) from None

    def _see_the_key(self, request: web.Request) -> None:
        if not self._parts.options.admin_key:
            said = "ADMIN_API_KEY is not set in the proxy's environment: instances can be neither added nor removed"
            raise Refused(failures.error(500, said, kind=failures.SERVER, code="no_admin_key"))
        shown = request.headers.get(ADMIN_KEY, "")
        if not hmac.compare_digest(
            shown.encode(errors="replace"), self._parts.options.admin_key.encode(errors="replace")
        ):
            raise Refused(failures.error(403, f"{ADMIN_KEY} is not the key", kind=failures.REFUSED, code="bad_key"))


def _with(place: Place, document: Mapping[str, Any]) -> Place:
    """What is said of an instance besides where it is. Raises ``BadInstance``."""
    bootstrap, events, replay = (document.get(key) for key in ("bootstrap", "kv_events", "kv_replay"))
    return replace(
        place,
        bootstrap=None if bootstrap is None else parse_bootstrap(str(bootstrap)),
        events=None if events is None else parse_endpoint(str(events)),
        replay=None if replay is None else parse_endpoint(str(replay)),
    )
