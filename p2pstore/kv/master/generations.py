"""Of which generation a caller is, where its call could be of several. Pure.

Most calls tell by their literal. What does not is a bare key, or a list of them: they look alike in 0.3.9 and 0.3.11,
and again in 0.3.12 and 0.3.13, and the answers do not. So everything that a connection says is remembered:

- A put, of any kind, is of one generation. The client's id in it binds the connection, and every other that names it.
- Only clients from 0.3.11 on fetch tasks. Only 0.3.9 pings before it has memory to give, and so remounts nothing.
- A client opens another connection only when all that it has are at work, and uses it at once. So a connection that
  has said nothing yet belongs to the client, of that address, whose idlest connection was at work last.

What is left is taken for the newest it can be. It is wrong only while clients of two such generations on one host work
at the same moment, and a new connection of one asks for keys before it has pinged, which it does within seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from engine.rpc.methods import GENERATIONS, Form

MAX_HOSTS = 4096
"""Addresses of which the clients are remembered."""

MAX_CLIENTS = 256
"""Clients that are remembered of one address."""

PAIRED_S = 2.0
"""A client of 0.3.9 pings, over another connection, within so long of its first call."""

_PINGS_EARLY = "0.3.9"
_FETCHES = tuple(generation for generation in GENERATIONS if generation != _PINGS_EARLY)


class Client:
    """What is known of one client id."""

    __slots__ = ("first", "possible", "speakers")

    def __init__(self, now: float) -> None:
        self.possible: tuple[str, ...] = GENERATIONS
        self.first = now
        self.speakers: set[Speaker] = set()


class Host:
    """What is known of one address: its clients, and connections that named none yet."""

    __slots__ = ("clients", "nameless")

    def __init__(self) -> None:
        self.clients: OrderedDict[bytes, Client] = OrderedDict()
        self.nameless: set[Speaker] = set()


class Speaker:
    """One connection."""

    __slots__ = ("active", "client", "host", "opened", "possible", "seen", "starts")

    def __init__(self, host: Host, now: float) -> None:
        self.host = host
        self.client: Client | None = None
        self.possible: tuple[str, ...] = GENERATIONS
        self.seen: set[Form] = set()
        """Forms that were heard; a second time they say nothing new."""
        self.opened = now
        self.active = now
        """When it was last heard."""
        self.starts = False
        """Whether it is a client's first connection."""


class Generations:
    """What all connections said so far."""

    def __init__(self) -> None:
        self._hosts: OrderedDict[str, Host] = OrderedDict()

    def opened(self, address: str, now: float) -> Speaker:
        """A connection comes from an address, without its port."""
        host = self._hosts.get(address)
        if host is None:
            host = self._hosts[address] = Host()
            if len(self._hosts) > MAX_HOSTS:
                self._hosts.popitem(last=False)
        speaker = Speaker(host, now)
        host.nameless.add(speaker)
        return speaker

    def closed(self, speaker: Speaker) -> None:
        """A connection is gone; what its client is stays known."""
        speaker.host.nameless.discard(speaker)
        if speaker.client is not None:
            speaker.client.speakers.discard(speaker)

    def heard(self, speaker: Speaker, form: Form, args: Sequence[Any]) -> None:
        """A call in a form that this connection did not use before."""
        speaker.seen.add(form)
        names = form.method.names
        if "client" in names and speaker.client is None:
            self._bind(speaker, args[names.index("client")])
        possible = form.generations
        if form.method.name == "ServiceReady":
            speaker.starts = True
        elif form.method.name == "FetchTasks":
            possible = _FETCHES
        elif form.method.name == "ReMountSegment" and not args[0]:
            possible = _common(possible, (_PINGS_EARLY,)) or possible
        speaker.possible = _common(speaker.possible, possible) or possible
        client = speaker.client
        if client is not None:
            client.possible = _common(client.possible, speaker.possible) or speaker.possible
            for other in client.speakers:
                other.possible = client.possible

    def guess(self, speaker: Speaker, form: Form) -> str:
        """The generation in whose form a call is answered."""
        possible = _common(speaker.possible, form.generations) or form.generations
        if len(possible) == 1:
            return possible[0]
        if speaker.client is None:
            likely = self._of_start(speaker, possible) if speaker.starts else self._of_opener(speaker, possible)
            possible = likely or possible
        return possible[-1]

    def _bind(self, speaker: Speaker, name: bytes) -> None:
        host = speaker.host
        client = host.clients.get(name)
        if client is None:
            client = host.clients[name] = Client(speaker.active)
            if len(host.clients) > MAX_CLIENTS:
                host.clients.popitem(last=False)
        host.clients.move_to_end(name)
        host.nameless.discard(speaker)
        speaker.client = client
        client.speakers.add(speaker)
        client.possible = _common(client.possible, speaker.possible) or speaker.possible
        speaker.possible = client.possible

    def _of_start(self, speaker: Speaker, possible: tuple[str, ...]) -> tuple[str, ...]:
        """A client's first connection: 0.3.9 if one of those began to ping just then over another one."""
        if _PINGS_EARLY not in possible or len(possible) == 1:
            return possible
        for client in speaker.host.clients.values():
            alone = not any(other.starts for other in client.speakers)
            if client.possible == (_PINGS_EARLY,) and alone and abs(client.first - speaker.opened) < PAIRED_S:
                return client.possible
        return tuple(each for each in possible if each != _PINGS_EARLY)

    def _of_opener(self, speaker: Speaker, possible: tuple[str, ...]) -> tuple[str, ...]:
        """A further connection of some client: the one that had no connection to spare."""
        found: list[tuple[float, tuple[str, ...]]] = []
        for client in speaker.host.clients.values():
            common = _common(client.possible, possible)
            if common and client.speakers:
                found.append((min(other.active for other in client.speakers), common))
        for other in speaker.host.nameless:
            if other is not speaker and other.starts:
                common = _common(other.possible, possible)
                if common:
                    found.append((other.active, self._of_start(other, common)))
        return max(found)[1] if found else ()


def _common(some: Iterable[str], others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(each for each in some if each in others)
