"""The instances that a proxy has, whatever their state. Pure.

An instance has a name for the policy, ``prefill/10.0.0.1:8100``, since one engine may be there for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from yarl import URL

from engine.net import addresses
from p2pstore.serving.events import Kind
from p2pstore.serving.proxy.health import Health, State

BOOTSTRAP_PORT = 8998
"""Of vLLM's Mooncake connector, unless it says otherwise (VLLM_MOONCAKE_BOOTSTRAP_PORT)."""

MAX_INSTANCES = 1024
"""Whoever adds instances has the key; a script of theirs may run in a circle."""

KINDS = {kind.value: kind for kind in (Kind.PREFILL, Kind.DECODE)}


class BadInstance(ValueError):
    """A text names no instance."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance is. ``bootstrap``: the port of its bootstrap server, where it has one."""

    host: str
    port: int
    scheme: str = "http"
    bootstrap: int | None = None
    events: str | None = None
    replay: str | None = None
    """The endpoints of its KV events, as ZeroMQ has them: where it says them, and where it says them again."""

    @property
    def address(self) -> str:
        """``host:port``, with brackets around an IPv6 address."""
        return addresses.join(self.host, self.port)

    @property
    def url(self) -> str:
        """What paths are put behind."""
        return f"{self.scheme}://{self.address}"

    @property
    def bootstrap_url(self) -> str | None:
        """That of the bootstrap server."""
        return None if self.bootstrap is None else f"http://{addresses.join(self.host, self.bootstrap)}"


@dataclass(eq=False, slots=True)
class Member:
    """One instance."""

    place: Place
    kind: Kind
    health: Health
    draining: bool = False
    removed: bool = False
    running: int = 0
    """Requests that are there now."""
    served: int = 0
    failed: int = 0
    last_failure: str = ""
    """What was wrong with the last request that it failed, unless it only had too much to do."""
    ejections: int = 0
    """How often it was passed over for a while, for it failed several in a row."""
    ranks: tuple[tuple[str, str], ...] = ()
    """Of a prefill instance with a bootstrap server: each data-parallel rank, and its engine's id."""
    turn: int = 0
    name: str = field(init=False)
    """For the policy."""
    urls: dict[str, URL] = field(default_factory=dict)
    """Addresses of paths there: taking one apart costs more than to remember it."""

    def __post_init__(self) -> None:
        self.name = f"{self.kind.value}/{self.place.address}"

    @property
    def up(self) -> bool:
        """Whether it takes requests."""
        return self.health.state is State.UP and not self.draining

    def next_rank(self) -> tuple[str, str] | None:
        """The rank whose turn it is."""
        if not self.ranks:
            return None
        self.turn += 1
        return self.ranks[self.turn % len(self.ranks)]

    def to_json(self, now: float, ejected_since: float | None = None) -> dict[str, Any]:
        """For the status; ``ejected_since``: the policy has passed it over since then."""
        ejected = ejected_since is not None and self.up
        since = ejected_since if ejected and ejected_since is not None else self.health.since
        return {
            "type": self.kind.value,
            "instance": self.place.address,
            "state": "draining" if self.draining else "ejected" if ejected else self.health.state.value,
            "seconds": round(now - since, 1),
            "why": f"it failed several requests in a row: {self.last_failure}" if ejected else self.health.why,
            "running": self.running,
            "served": self.served,
            "failed": self.failed,
        }


@dataclass
class Fleet:
    """All of them, by the policy's name."""

    members: dict[str, Member] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self.members.values()))

    def of(self, kind: Kind) -> list[Member]:
        """Those of a kind that take requests."""
        return [member for member in self.members.values() if member.kind is kind and member.up]

    @property
    def ready(self) -> bool:
        """Whether requests can be served."""
        return all(self.of(kind) for kind in KINDS.values())


def parse_instance(text: str) -> Place:
    """``HOST:PORT``, ``[IPv6]:PORT`` or ``http://HOST:PORT``. Raises ``BadInstance``."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    if scheme not in {"http", "https"}:
        raise BadInstance(f"{text!r} begins with neither http:// nor https://")
    try:
        host, port = addresses.parse(rest.rstrip("/") if separator else rest)
    except addresses.BadAddress as error:
        raise BadInstance(str(error)) from None
    return Place(host, port, scheme)


def parse_bootstrap(word: str) -> int | None:
    """The port of a bootstrap server, or None for ``none``. Raises ``BadInstance``."""
    if word.lower() == "none":
        return None
    if not word.isdecimal() or not 0 < int(word[:6]) <= addresses.MAX_PORT:
        raise BadInstance(f"{word!r} is no port of a bootstrap server (1 to {addresses.MAX_PORT}, or 'none')")
    return int(word)


def with_events(places: Sequence[Place], words: Sequence[str]) -> list[Place]:
    """Instances, some with endpoints of KV events: ``INSTANCE=ENDPOINT[,REPLAY]``. Raises ``BadInstance``."""
    found = {place.address: place for place in places}
    for word in words:
        instance, equals, endpoints = word.partition("=")
        address = parse_instance(instance).address
        if not equals or address not in found:
            raise BadInstance(f"{word!r} is no INSTANCE=ENDPOINT[,REPLAY] of an instance named with --prefill")
        events, comma, again = endpoints.partition(",")
        replay = parse_endpoint(again) if comma else None
        found[address] = replace(found[address], events=parse_endpoint(events), replay=replay)
    return list(found.values())


def parse_endpoint(text: str) -> str:
    """``tcp://HOST:PORT`` or ``ipc://PATH``, of ZeroMQ's. Raises ``BadInstance``."""
    scheme, _, rest = text.partition("://")
    try:
        if scheme == "tcp":
            addresses.parse(rest)
            return text
    except addresses.BadAddress as error:
        raise BadInstance(f"{text!r}: {error}") from None
    if scheme == "ipc" and rest:
        return text
    raise BadInstance(f"{text!r} is no endpoint such as tcp://10.0.0.1:5557")


def parse_instances(words: Sequence[str]) -> list[Place]:
    """Instances; the port of its bootstrap server may stand behind each. Raises ``BadInstance``."""
    found: list[Place] = []
    for word in words:
        if found and (word.isdecimal() or word.lower() == "none"):
            found[-1] = replace(found[-1], bootstrap=parse_bootstrap(word))
        else:
            found.append(parse_instance(word))
    seen: set[str] = set()
    for place in found:
        if place.address in seen:
            raise BadInstance(f"{place.address} is named twice")
        seen.add(place.address)
    return found
