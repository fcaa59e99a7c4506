"""Calls over an agent's Unix socket: how one is made, what comes back, and what it means that nothing does.

One connection a call. A call that takes long is a generator of its events; closing the generator closes the connection,
which cancels the call in the agent.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from engine import forks
from engine.cgroups import killed_since, memory_kills
from p2pstore.agent.connection import (
    CONNECT_TIMEOUT,
    UnixConnection,
    may_not_connect,
    nobody_listens,
    send,
    socket_of,
    why_silent,
)
from p2pstore.agent.home import Home
from p2pstore.errors import AgentGone, AgentKilled, AgentUnreachable, PathNotFound, from_wire

EVENT_TIMEOUT = 120.0
"""Seconds without an event in a call that takes long; the agent reports at least every few seconds."""

MAX_ANSWER = 64 << 20
"""Bytes of a plain answer: the file list of an object of several hundred thousand files."""

MAX_EVENT = 16 << 20
"""Bytes of one event's line."""

DATA_BYTES = 1 << 20
"""Of data that are read at once."""

Event = dict[str, Any]


class SocketCalls:
    """Calls to the agent of one home. What each raises is told of ``AgentClient``."""

    def __init__(self, home: Home, timeout: float) -> None:
        """``timeout`` bounds each read of a call that is answered at once, in seconds."""
        self.home = home
        self._timeout = timeout

    def answer(
        self, method: str, target: str, body: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """A call that is answered at once: its answer. ``timeout`` in place of the usual one, in seconds."""
        with self._opened(method, target, body, self._timeout if timeout is None else timeout) as response:
            return self._read_answer(response)

    def events(self, target: str, body: Mapping[str, object] | Iterator[bytes]) -> Generator[Event, None, None]:
        """The events of a POST that takes long; the last one is its result. An error event is raised.

        ``body`` is sent as JSON, or as the bytes that it brings. Data comes as events with ``data``, a view that is
        good until the next.
        """
        origin = forks.Origin("this call to the agent")
        kills = memory_kills(_pid_of(self.home))
        with self._opened("POST", target, body, EVENT_TIMEOUT) as response:
            while True:
                origin.check()
                try:
                    line = response.readline(MAX_EVENT + 1)
                except ConnectionError:
                    line = b""
                if not line:
                    raise self._gone(kills)
                event = self._parsed(line, MAX_EVENT)
                if event.get("event") == "error":
                    raise from_wire(event.get("error"))
                if event.get("event") == "bytes":
                    yield from self._bytes(response, event, kills)
                    continue
                yield event
                if event.get("event") == "result":
                    return

    def _bytes(
        self, response: http.client.HTTPResponse, event: Event, kills: dict[Path, int]
    ) -> Generator[Event, None, None]:
        """The bytes that an event announces, as many events as it takes."""
        left = int(event["length"])
        room = memoryview(bytearray(min(left, DATA_BYTES)))
        while left:
            try:
                count = response.readinto(room[: min(left, DATA_BYTES)])
            except (ConnectionError, http.client.IncompleteRead):
                count = 0
            if not count:
                raise self._gone(kills)
            left -= count
            yield {"event": "data", "data": room[:count]}

    def _gone(self, kills: dict[Path, int]) -> AgentGone:
        """That the agent ended during a call; ``kills`` is what ``memory_kills`` counted before."""
        group = killed_since(kills)
        return AgentGone(home=self.home.root) if group is None else AgentKilled(home=self.home.root, group=group)

    def _read_answer(self, response: http.client.HTTPResponse) -> dict[str, Any]:
        answer = self._parsed(response.read(MAX_ANSWER + 1), MAX_ANSWER)
        if response.status >= http.client.BAD_REQUEST:
            raise from_wire(answer.get("error", answer))
        return answer

    def _parsed(self, data: bytes, limit: int) -> dict[str, Any]:
        if len(data) > limit:
            raise AgentUnreachable(home=self.home.root, detail=f"it answers with more than {limit} bytes")
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise AgentUnreachable(home=self.home.root, detail="it answers with something that is not ours")
        return value

    @contextlib.contextmanager
    def _opened(
        self, method: str, target: str, body: Mapping[str, object] | Iterator[bytes] | None, timeout: float
    ) -> Iterator[http.client.HTTPResponse]:
        """One call, answered and not yet read. What goes wrong on the socket becomes an error of the tree."""
        connection = UnixConnection(socket_of(self.home))
        try:
            try:
                connection.connect()
            except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError, PathNotFound):
                raise nobody_listens(self.home) from None
            except TimeoutError as error:
                detail = f"no room for one more call in {CONNECT_TIMEOUT} s{why_silent(self.home)}"
                raise AgentUnreachable(home=self.home.root, detail=detail) from error
            except ConnectionError:
                raise
            except OSError as error:
                raise may_not_connect(self.home, error) from error
            connection.sock.settimeout(timeout)
            send(connection, method, target, body)
            # One without a length has the socket to itself: closing the connection would leave it open.
            with connection.getresponse() as response:
                if response.status >= http.client.BAD_REQUEST:
                    self._read_answer(response)
                yield response
        except TimeoutError as error:
            detail = f"nothing for {timeout:g} s{why_silent(self.home)}"
            raise AgentUnreachable(home=self.home.root, detail=detail) from error
        except http.client.HTTPException as error:
            if isinstance(error, ConnectionError):
                raise AgentGone(home=self.home.root) from error
            raise AgentUnreachable(home=self.home.root, detail="it does not speak HTTP") from error
        except ConnectionError as error:
            raise AgentGone(home=self.home.root) from error
        finally:
            connection.close()


def _pid_of(home: Home) -> int:
    """The pid of the agent as its lock has it; 0 where it has none."""
    try:
        return int(home.lock.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0
