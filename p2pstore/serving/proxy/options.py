"""What a proxy is told when it starts, and the limits that nobody needs to change."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pstore.serving.policy import PolicySettings
from p2pstore.serving.proxy import turns
from p2pstore.serving.proxy.fleet import Place

CONNECT_SECONDS = 5.0
"""For a connection to an instance."""

IDLE_SECONDS = 300.0
"""Without a byte from an instance that has a request: prompts wait there, and long ones take long."""

DRAIN_SECONDS = 300.0
"""For the requests of an instance that is being removed; what is still there is then begun elsewhere, or cut."""

BODY_SECONDS = 30.0
"""For the body of a request, once its headers are there."""

CLIENT_SECONDS = 60.0
"""Without a byte that a client takes of what waits for it."""

GRACE_SECONDS = 30.0
"""For the requests that are under way when the proxy is told to end; a second signal ends them at once."""

SWEEP_SECONDS = 1.0
"""Between looks at who has been silent for too long; more often where a time-out is short."""

MAX_BODIES_BYTES = 1 << 30
"""Of all bodies of requests that are held at a time."""

MAX_ANSWER_BYTES = 64 << 20
"""Of an answer that is not streamed."""

MAX_FIRST_BYTES = 1 << 20
"""Of a stream before its first token."""

BLOCK_TOKENS = 128
"""Of the blocks by which the proxy knows prefixes."""


@dataclass(frozen=True)
class Options:
    """Where the instances are, how requests are placed, and how long anybody waits. Times in seconds."""

    model: str
    prefill: tuple[Place, ...] = ()
    decode: tuple[Place, ...] = ()
    policy: PolicySettings = field(default_factory=lambda: PolicySettings(block_tokens=BLOCK_TOKENS))
    p2p: bool = False
    """Whether decode instances fetch KV cache from prefill instances, and not from a store."""
    pool: str | None = None
    """The metrics port of the master whose keys are listed, for what the pool holds."""
    running: int = turns.MAX_RUNNING
    waiting: int = turns.MAX_WAITING
    wait_seconds: float = turns.WAIT_SECONDS
    connect_seconds: float = CONNECT_SECONDS
    idle_seconds: float = IDLE_SECONDS
    drain_seconds: float = DRAIN_SECONDS
    body_seconds: float = BODY_SECONDS
    client_seconds: float = CLIENT_SECONDS
    admin_key: str | None = field(default=None, repr=False)
    """Who shows it may add and remove instances; nobody may where there is none."""
    engine_key: str | None = field(default=None, repr=False)
    """With what the proxy itself asks instances. Clients' requests carry what the clients sent."""
