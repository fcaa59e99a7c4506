"""Of which generation a caller is, where its call could be of several. Pure.

Most calls tell by their literal. What does not is a bare key, or a list of them: they look alike in 0.3.9 and 0.3.11,
and again in 0.3.12 and 0.3.13, and the answers do not. So everything that a connection says is remembered:

- A put, of any kind, is of one generation. The client's id in it binds the connection, and every other that names it.
- Only clients from 0.3.11 on fetch tasks. Only 0.3.9 pings before it has memory to give, and so remounts nothing.
- A client opens another connection only when all that it has are at work, and uses it at once. So a connection that
  has said nothing yet belongs to the client, of that address, whose idlest connection was at work last.
- A client that cannot read an answer closes the connection at once. So who calls again was answered rightly, and where
  a connection ends right after such an answer, the next one of that address is answered otherwise.

What is left is taken for one that is known at that address, or the newest it can be. That may be wrong for the first
key that a new connection asks for, while clients of two such generations work on one host at the same moment, and for a
client of 0.3.12 that only reads, where no other tells. That one call fails for the client, as ``RPC_FAILED``.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from engine.rpc.methods import GENERATIONS, Form

MAX_HOSTS = 4096
"""Addresses of which the clients are remembered."""

MAX_CLIENTS = 256
"""Clients that are remembered of one address."""

DENIED_S = 1.0
"""How soon the connection of a client that cannot read an answer ends, and the next one comes."""

MAX_DENIED = 64
"""Such ends that are remembered of one address."""

PAIRED_S = 15.0
"""A client of 0.3.9 pings, over another connection, within so long of its first call, on a slow day too."""

_PINGS_EARLY = "0.3.9"
_FETCHES = tuple(generation for generation in GENERATIONS if generation != _PINGS_EARLY)


class Client:
    """What is known of one client id."""

    __slots__ = ("first", "paired", "possible", "speakers")

    def __init__(self, now: float) -> None:
        self.possible: tuple[str, ...] = GENERATIONS
        self.first = now
        self.paired: Speaker | None = None
        """The first connection that is taken for its own, though it did not say so."""
        self.speakers: set[Speaker] = set()


class Host:
    """What is known of one address: its clients, connections that named none yet, and what somebody could not read."""

    __slots__ = ("clients", "denied", "nameless")

    def __init__(self) -> None:
        self.clients: OrderedDict[bytes, Client] = OrderedDict()
        self.nameless: set[Speaker] = set()
        self.denied: deque[tuple[float, tuple[str, ...]]] = deque(maxlen=MAX_DENIED)

    def knows(self, generations: tuple[str, ...]) -> bool:
        """Whether somebody there is known to be of one of these."""
        known: Iterable[Client | Speaker] = chain(self.clients.values(), self.nameless)
        return any(len(each.possible) == 1 and each.possible[0] in generations for each in known)


class Speaker:
    """One connection."""

    __slots__ = ("active", "client", "host", "opened", "possible", "seen", "starts", "tried")

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
        self.tried: tuple[str, ...] = ()
        """The generations that can read what it was answered without being sure, until it calls again."""


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

    def closed(self, speaker: Speaker, now: float) -> None:
        """A connection is gone; what its client is stays known."""
        if speaker.tried and now - speaker.active < DENIED_S:
            speaker.host.denied.append((now, speaker.tried))
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
        self._narrow(speaker, possible)

    def again(self, speaker: Speaker) -> None:
        """It calls again after an answer that only one generation can read."""
        self._narrow(speaker, speaker.tried)
        speaker.tried = ()

    def likely(self, speaker: Speaker, form: Form) -> str:
        """The generation that it is called in what people are told."""
        return (_common(speaker.possible, form.generations) or form.generations)[-1]

    def guess(self, speaker: Speaker, form: Form) -> str:
        """The generation in whose form a call is answered, where the forms differ."""
        possible = _common(speaker.possible, form.generations) or form.generations
        if len(possible) == 1:
            return possible[0]
        likely = self._denied(speaker, possible)
        if not likely and speaker.client is None:
            likely = self._of_start(speaker, possible) if speaker.starts else self._of_opener(speaker, possible)
        likely = likely or possible
        known = tuple(each for each in likely if speaker.host.knows((each,)))
        found = (known or likely)[-1]
        answers = form.method.answers
        readable = tuple(each for each in possible if answers[each].hash == answers[found].hash)
        speaker.tried = readable if readable != possible else ()
        return found

    def _narrow(self, speaker: Speaker, possible: tuple[str, ...]) -> None:
        speaker.possible = _common(speaker.possible, possible) or possible
        client = speaker.client
        if client is not None:
            client.possible = _common(client.possible, speaker.possible) or speaker.possible
            for other in client.speakers:
                other.possible = client.possible

    def _denied(self, speaker: Speaker, possible: tuple[str, ...]) -> tuple[str, ...]:
        """What is left where somebody of that address could not read an answer just now.

        Somebody may have ended by himself after an answer that he could read: so where nobody there is known to be of
        what is left, it takes two.
        """
        denied = speaker.host.denied
        while denied and speaker.active - denied[0][0] > DENIED_S:
            denied.popleft()
        for token in denied:
            left = tuple(each for each in possible if each not in token[1])
            if not left or len(left) == len(possible) or token[0] < speaker.opened - DENIED_S:
                continue
            if speaker.host.knows(left) or sum(other[1] == token[1] for other in denied) > 1:
                denied.remove(token)
                return left
        return ()

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
            alone = client.speakers and not any(other.starts for other in client.speakers)
            if client.possible == (_PINGS_EARLY,) and alone and self._pair(client, speaker):
                return client.possible
        return tuple(each for each in possible if each != _PINGS_EARLY)

    def _pair(self, client: Client, speaker: Speaker) -> bool:
        """Whether that first connection is this client's: of those that are nobody's the one that came when it did."""
        if client.paired is None:
            starts = [each for each in speaker.host.nameless if each.starts]
            taken = {each.paired for each in speaker.host.clients.values()}
            near = min(
                (each for each in starts if each not in taken),
                key=lambda each: abs(client.first - each.opened),
                default=None,
            )
            if near is speaker and abs(client.first - speaker.opened) < PAIRED_S:
                client.paired = speaker
        return client.paired is speaker

    def _of_opener(self, speaker: Speaker, possible: tuple[str, ...]) -> tuple[str, ...]:
        """A further connection of some client: the one that had no connection to spare."""
        found: list[tuple[float, tuple[str, ...]]] = []
        for client in speaker.host.clients.values():
            common = _common(client.possible, possible)
            if common and client.speakers:
                found.append((min(other.active for other in client.speakers), common))
        for other in speaker.host.nameless:
            if other is not speaker and (other.starts or len(other.possible) == 1):
                common = _common(other.possible, possible)
                if common:
                    found.append((other.active, self._of_start(other, common)))
        return max(found)[1] if found else ()


def _common(some: Iterable[str], others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(each for each in some if each in others)
