"""A call ends with its answer, the agent's error, or one that says what became of the agent: nothing else, and in time."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

import p2pstore.agent.client
import p2pstore.agent.connection
import p2pstore.agent.socket_calls
from p2pstore.agent.client import AgentClient, result_of
from p2pstore.agent.home import Home, socket_address
from p2pstore.errors import (
    AgentGone,
    AgentKilled,
    AgentNotRunning,
    AgentUnreachable,
    MooncakeError,
    ObjectNotFound,
)
from tests.cli.fake_agent import FakeAgent, HangUntilCancelled, progress
from tests.p2pstore.agent.full_socket import full_socket


def threading_wait(agent: FakeAgent) -> dict[str, object]:
    agent.cancelled.wait(30)
    return {}


@pytest.mark.parametrize("state", ["no home", "no socket", "stale socket"])
def test_without_an_agent_it_says_so(home: Home, state: str) -> None:
    if state != "no home":
        home.create()
    if state == "stale socket":
        with socket.socket(socket.AF_UNIX) as stale, socket_address(home.socket) as address:
            stale.bind(address)
    with pytest.raises(AgentNotRunning) as caught:
        AgentClient(home).status()
    assert caught.value.fields["home"] == home.root


def test_an_error_event_is_raised(agent: FakeAgent, home: Home) -> None:
    agent.answers["POST /v1/get"] = [progress(0, 10), ObjectNotFound(name="n")]
    events = AgentClient(home).get("n", "/d")
    assert next(events)["event"] == "progress"
    with pytest.raises(ObjectNotFound):
        next(events)


def test_an_error_before_the_first_event_is_raised(agent: FakeAgent, home: Home) -> None:
    agent.answers["POST /v1/get"] = ObjectNotFound(name="n")
    with pytest.raises(ObjectNotFound):
        result_of(AgentClient(home).get("n", "/d"))


def test_closing_the_generator_cancels_the_call(agent: FakeAgent, home: Home) -> None:
    agent.answers["POST /v1/get"] = [progress(0, 10), HangUntilCancelled()]
    events = AgentClient(home).get("n", "/d")
    next(events)
    assert not agent.cancelled.is_set()
    events.close()  # type: ignore[attr-defined]
    assert agent.cancelled.wait(60)


def test_an_end_without_a_result_is_an_agent_that_went_away(agent: FakeAgent, home: Home) -> None:
    agent.answers["POST /v1/get"] = [progress(0, 10)]
    with pytest.raises(AgentUnreachable, match="ended while it was at work"):
        result_of(AgentClient(home).get("n", "/d"))


def test_one_that_went_away_when_the_kernel_killed_for_memory(
    agent: FakeAgent, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 3\n")
    monkeypatch.setattr(p2pstore.agent.socket_calls, "memory_kills", lambda _: {events: 3})
    agent.answers["POST /v1/get"] = [progress(0, 10)]
    with pytest.raises(AgentGone, match="ended while it was at work") as caught:
        result_of(AgentClient(home).get("n", "/d"))
    assert "the same command resumes" in caught.value.hint
    events.write_text("oom_kill 4\n")
    with pytest.raises(AgentKilled, match="for want of memory") as caught:
        result_of(AgentClient(home).get("n", "/d"))
    assert "memory" in caught.value.hint


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"a":',
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xff",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
@pytest.mark.parametrize("call", ["status", "get"])
def test_garbage_is_an_agent_that_does_not_answer(agent: FakeAgent, home: Home, answer: bytes, call: str) -> None:
    agent.answers["GET /v1/status"] = agent.answers["POST /v1/get"] = answer
    with pytest.raises(AgentUnreachable):
        AgentClient(home).status() if call == "status" else result_of(AgentClient(home).get("n", "/d"))


def test_an_error_answer_that_is_not_ours_is_one_of_the_tree(agent: FakeAgent, home: Home) -> None:
    agent.answers["GET /v1/status"] = b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}"
    with pytest.raises(MooncakeError):
        AgentClient(home).status()


def test_silence_has_an_end(agent: FakeAgent, home: Home) -> None:
    agent.answers["GET /v1/status"] = lambda _: threading_wait(agent)
    with pytest.raises(AgentUnreachable, match=r"nothing for 0\.2 s"):
        AgentClient(home, timeout=0.2).status()
    agent.cancelled.set()


def test_too_long_an_answer_is_refused(agent: FakeAgent, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(p2pstore.agent.socket_calls, "MAX_ANSWER", 100)
    agent.answers["GET /v1/info"] = {"name": "x" * 200}
    with pytest.raises(AgentUnreachable, match="more than 100 bytes"):
        AgentClient(home).info("x")


def test_an_answer_without_a_length_is_let_go_with_the_error(home: Home) -> None:
    """Such an answer has the socket to itself, and whoever keeps the error keeps the answer."""
    ended: list[bytes] = []
    home.socket.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener, socket_address(home.socket) as address:
        listener.bind(address)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(60)
                connection.recv(65536)
                connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"event": "error", "error": {"type": "NoSuchObject"}}\n')
                while not ended or ended[-1]:
                    ended.append(connection.recv(65536))

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(MooncakeError) as caught:
            list(AgentClient(home).verify("n"))
        thread.join(90)
        assert caught.value.__traceback__ is not None
        assert ended[-1:] == [b""]


def test_a_socket_without_room_is_waited_for(home: Home) -> None:
    home.create()
    with full_socket(home.socket) as (listener, others):

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection, connection.makefile("rb") as asked:
                    length = 0
                    for line in iter(asked.readline, b"\r\n"):
                        if not line:
                            break
                        if line.lower().startswith(b"content-length:"):
                            length = int(line.split(b":")[1])
                    else:
                        asked.read(length)  # what is left unread at the end resets the connection
                        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"pid": 7}')
                        return

        answered: list[int] = []
        asking = threading.Thread(target=lambda: answered.append(AgentClient(home).stop()))
        asking.start()
        asking.join(0.2)
        assert asking.is_alive()
        others.close()  # whoever accepts them finds nothing asked
        serve()
        asking.join(60.0)
        assert answered == [7]


def test_a_socket_without_room_is_not_waited_for_for_ever(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (p2pstore.agent.socket_calls, p2pstore.agent.connection):
        monkeypatch.setattr(module, "CONNECT_TIMEOUT", 1)
    home.create()
    with full_socket(home.socket), pytest.raises(AgentUnreachable, match="no room for one more call in 1 s"):
        AgentClient(home).status()
