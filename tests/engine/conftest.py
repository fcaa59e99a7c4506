"""What holds for all tests of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import pytest

from engine.config.settings import EngineSettings
from engine.metadata import http, redis
from engine.net.handshake_client import exchange, fetch_descriptor
from engine.serving import descriptor_server, handshake_server, tcp_server
from engine.transfer import lanes

WAIT = 60.0


@pytest.fixture(scope="module", autouse=True)
def _no_hurry() -> Iterator[None]:
    """On a slow day nobody has stalled who stands still for some seconds; a test of those who have says how long."""
    names, defaults = [each.name for each in fields(EngineSettings)], EngineSettings.__init__.__defaults__ or ()
    patient = tuple(WAIT if name == "connect_timeout" else each for name, each in zip(names, defaults, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EngineSettings.__init__, "__defaults__", patient)
        for call in (exchange, fetch_descriptor):
            patch.setattr(call, "__kwdefaults__", {"timeout": WAIT})
        patch.setattr(http, "TIMEOUT", WAIT)
        patch.setattr(redis, "TIMEOUT", WAIT)
        patch.setattr(handshake_server, "CLIENT_TIMEOUT", WAIT)
        # Else what was closed may listen for a while yet, where its thread stands still.
        for module in (descriptor_server, handshake_server, lanes, tcp_server):
            patch.setattr(module, "CLOSE_TIMEOUT", WAIT)
        yield
