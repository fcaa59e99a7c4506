"""The owner's server against those who do not keep to the protocol, and its bounds."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from engine.memory.address_space import AddressSpace
from engine.memory.buffers import MemoryBuffer
from engine.net.rate import BURST_SECONDS, RateLimit
from engine.protocol.handshake import Decoder, Message, MessageType, encode
from engine.serving.segment_server import SegmentServer
from engine.transports.rdma.nics import Nics
from engine.transports.rdma.owner import server as servers
from engine.transports.rdma.setup import GrantRequest, Setup
from engine.transports.rdma.verbs.fake_verbs import Fabric, mapped_gid

WAIT = 60.0


class Client:
    """One handshake connection, kept open."""

    def __init__(self, server: SegmentServer) -> None:
        self.sock = socket.create_connection((server.host, server.rpc_port), timeout=WAIT)

    def send(self, body: dict[str, object]) -> None:
        self.sock.sendall(encode(Message(MessageType.CONNECTION, body)))

    def answer(self) -> dict[str, object]:
        decoder = Decoder(peer="server")
        while True:
            data = self.sock.recv(1 << 16)
            assert data, "it closed"
            message = decoder.feed(data)
            if message is not None:
                return message.body

    def ask(self, body: dict[str, object]) -> dict[str, object]:
        self.send(body)
        return self.answer()

    def ended(self) -> bool:
        try:
            return not self.sock.recv(1)
        except ConnectionResetError:
            return True


Connect = Callable[[SegmentServer], Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connects clients, and closes them."""
    made: list[Client] = []

    def client(server: SegmentServer) -> Client:
        made.append(Client(server))
        return made[-1]

    yield client
    for each in made:
        each.sock.close()


def setup(**more: object) -> dict[str, object]:
    body = Setup("reader@a0", "owner@b0", (99,), mapped_gid("10.1.0.1"), mtu=4096, session=True).to_json()
    return {**body, **more}


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + WAIT
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_session_ends_with_its_connection(connect: Connect, owner: SegmentServer, fabric: Fabric) -> None:
    address = owner.register(MemoryBuffer("m", b"x" * 100))
    client = connect(owner)
    told = Setup.from_json(client.ask(setup()), peer="p")
    assert (told.session, told.gid, told.mtu, told.peer_nic) == (True, mapped_gid("10.1.0.2"), 4096, "reader@a0")
    assert client.ask(GrantRequest(1, address, 100).to_json())["mooncake_cli_grant"] == 1
    assert (owner.rdma_sessions, len(fabric.pairs)) == (1, 1)
    client.sock.close()
    assert until(lambda: not owner.rdma_sessions and not fabric.pairs)


def test_one_of_upstreams_is_answered_and_its_queue_pairs_stay_until_it_comes_again(
    connect: Connect, owner: SegmentServer, fabric: Fabric
) -> None:
    plain = Setup("10.1.0.1:5@a0", "owner@b0", (99,), mapped_gid("10.1.0.1")).to_json()
    for _ in range(3):
        client = connect(owner)
        told = client.ask(plain)
        assert not [name for name in told if name.startswith("mooncake_cli")]
        assert client.ended()
        client.sock.close()
        assert until(lambda: not owner.rdma_sessions)
    assert len(fabric.pairs) == 1


@pytest.mark.parametrize(
    "body",
    [{"mooncake_cli_grant": [1, 4096, 5]}, {}, {"qp_num": "x"}, {"mooncake_cli_grant": "all"}, {"reply_msg": "no"}],
)
def test_what_makes_no_sense_ends_the_connection_and_nothing_else(
    connect: Connect, owner: SegmentServer, body: dict[str, object]
) -> None:
    client = connect(owner)
    client.send(body)
    assert client.ended()
    assert "qp_num" in connect(owner).ask(setup())


def test_a_device_that_is_not_there_is_rejected_by_name(connect: Connect, owner: SegmentServer) -> None:
    client = connect(owner)
    told = client.ask(setup(peer_nic_path="owner@mlx5_9"))
    assert told["reply_msg"] == "there is no usable device 'mlx5_9' here, but b0"


def test_one_reader_gets_only_so_many_queue_pairs(
    connect: Connect, owner: SegmentServer, fabric: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "MAX_SESSION_PAIRS", 2)
    client = connect(owner)
    numbers = [Setup.from_json(client.ask(setup()), peer="p").numbers[0] for _ in range(2)]
    assert "more than 2 queue pairs" in str(client.ask(setup())["reply_msg"])
    # What it has replaced does not count.
    assert client.ask(setup(mooncake_cli_replaces=numbers))["reply_msg"] == ""
    assert len(fabric.pairs) == 1


def test_one_session_too_many_is_rejected(
    connect: Connect, owner: SegmentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "MAX_SESSIONS", 1)
    first = connect(owner)
    first.ask(setup())
    told = connect(owner).ask(setup())
    assert told["reply_msg"]
    assert first.ask(GrantRequest(1, 4096, 1).to_json())["reply_msg"] == "it is not served"


def test_a_silent_client_holds_up_nobody(connect: Connect, owner: SegmentServer) -> None:
    silent = [connect(owner) for _ in range(3)]
    assert "qp_num" in connect(owner).ask(setup())
    for client in silent:
        client.sock.close()


def test_grants_keep_to_the_limit_of_uploads(connect: Connect, open_nics: Callable[..., Nics]) -> None:
    slept: list[float] = []
    limit = RateLimit(10 << 20, clock=lambda: 1000.0 + sum(slept), sleep=slept.append)
    with SegmentServer(rdma=open_nics("b0"), upload_limit=limit) as server:
        address = server.register(MemoryBuffer("m", bytes(4 << 20)))
        client = connect(server)
        client.ask(setup())
        client.ask(GrantRequest(1, address, 4 << 20).to_json())
        assert 0.4 - BURST_SECONDS <= sum(slept) <= 0.41


def test_close_waits_for_no_limit(connect: Connect, open_nics: Callable[..., Nics]) -> None:
    """D10: who keeps to a limit pays the whole debt, but not to a server that closes."""
    waits = threading.Event()

    def sleep(seconds: float) -> None:
        waits.set()
        time.sleep(seconds)

    with SegmentServer(rdma=open_nics("b0"), upload_limit=RateLimit(1, sleep=sleep)) as server:
        address = server.register(MemoryBuffer("m", bytes(4 << 20)))
        client = connect(server)
        client.ask(setup())
        client.send(GrantRequest(1, address, 4 << 20).to_json())
        assert waits.wait(30)
    assert server.rdma_sessions == 0


def refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_session_without_a_thread_is_rejected_and_leaves_nothing(
    connect: Connect, owner: SegmentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D19: a start that failed left a session for ever, and its client without an answer."""
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        client = connect(owner)
        assert client.ask(setup())["reply_msg"]
        assert client.ended()
    assert owner.rdma_sessions == 0
    assert Setup.from_json(connect(owner).ask(setup()), peer="p").numbers
    assert [failure.name for failure in owner.failures] == ["RDMA session"]


def test_close_while_a_session_is_about_to_start(
    open_nics: Callable[..., Nics], monkeypatch: pytest.MonkeyPatch
) -> None:
    """D19: ``close`` came between the entry of the session and the start of its thread, and joined that."""
    start = threading.Thread.start
    server = servers.RdmaServer(AddressSpace(), open_nics("b0"), lambda: "owner")
    errors: list[BaseException] = []

    def close() -> None:
        try:
            server.close()
        except BaseException as error:
            errors.append(error)

    closer = threading.Thread(target=close)

    def slow_start(thread: threading.Thread) -> None:
        if not closer.ident:
            start(closer)
            closer.join(0.5)  # it may go as far as it can
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", slow_start)
    ours, theirs = socket.socketpair()
    with theirs:
        if not server.take_over(ours, Message(MessageType.CONNECTION, setup()), "peer"):
            ours.close()
        closer.join(30)
        assert not closer.is_alive()
        theirs.settimeout(30)
        assert theirs.recv(1) == b""
    assert not errors
    assert server.sessions == 0
