"""The connection to the master, against servers that answer oddly, late or not at all."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from engine.errors import RemoteProtocolError, UsageError
from engine.rpc import framing
from engine.rpc.calls import Call, read_call, write_answer, write_refusal
from engine.rpc.framing import Splitter
from engine.rpc.methods import NEWEST
from p2pstore.kv.client import line
from p2pstore.kv.client import master as module
from p2pstore.kv.client.master import Master
from p2pstore.kv.client.store import Store
from p2pstore.kv.errors import MasterUnavailable

WAIT = 60

Answer = Callable[[framing.Request], bytes]


def as_it_should(request: framing.Request) -> bytes:
    """What a master answers."""
    call = read_call(request, "a client")
    results = {"ServiceReady": "2.0.0", "BatchPutEnd": [], "ExistKey": True, "BatchExistKey": [True], "RemoveAll": 7}
    return write_answer(call.sequence, call.form, NEWEST, results[call.form.method.name])  # type: ignore[union-attr]


class Server:
    """A server that answers as it is told, on connections of its own threads."""

    def __init__(self) -> None:
        self.answer: Answer = as_it_should
        self.introduced: Answer = as_it_should
        """To the call with which a connection begins."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections.append(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        splitter = Splitter(peer="a client")
        # Anybody may knock at a port: one who lost his server may take this for it.
        with contextlib.suppress(OSError, RemoteProtocolError):
            while data := sock.recv(1 << 16):
                for request in splitter.requests(data):
                    answer = self.answer(request) if request.sequence else self.introduced(request)
                    if not answer:
                        sock.shutdown(socket.SHUT_RDWR)
                        return
                    sock.sendall(answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # closing alone does not wake who waits in accept
        self._listener.close()
        self._thread.join(WAIT)
        for sock in self.connections:
            sock.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def master(server: Server) -> Iterator[Master]:
    made = Master(server.address, client=os.urandom(16), tenant="default")
    assert made.revive()
    yield made
    made.close()


def at_once(server: Server, master: Master, count: int) -> None:
    """So many calls, none of which is answered before all are there."""
    gate = threading.Barrier(count)

    def together(request: framing.Request) -> bytes:
        gate.wait(WAIT)
        return as_it_should(request)

    server.answer = together
    threads = [threading.Thread(target=master.exist, args=(["k"],)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)


def test_a_connection_is_used_again_and_threads_have_their_own(server: Server, master: Master) -> None:
    for _ in range(10):
        assert master.exist(["k"]) == [True]
    assert len(server.connections) == 1
    at_once(server, master, 4)
    assert len(server.connections) == 4


def test_each_connection_says_which_release_it_speaks_and_whose_it_is(server: Server) -> None:
    heard: list[tuple[str, tuple[str, ...], object]] = []

    def listening(request: framing.Request) -> bytes:
        call = read_call(request, "a client")
        assert isinstance(call, Call)
        heard.append((call.form.method.name, call.form.generations, call.args[0] if call.args else None))
        return as_it_should(request)

    server.answer = server.introduced = listening
    name = os.urandom(16)
    master = Master(server.address, client=name, tenant="default")
    assert master.revive()
    assert master.exist(["k"]) == [True]
    assert heard[0] == ("BatchPutEnd", (NEWEST,), name)
    assert [each[0] for each in heard[1:]] == ["ServiceReady", "ExistKey"]
    master.close()


def test_a_master_that_does_not_know_the_introduction_is_called_all_the_same(server: Server) -> None:
    server.introduced = lambda request: write_refusal(request.sequence, 5, "no")
    master = Master(server.address, client=os.urandom(16), tenant="default")
    assert master.revive()
    assert master.exist(["k"]) == [True]
    assert master.refusals == 0
    master.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda request: b"", "closed the connection"),
        (lambda request: b"HTTP/1.1 400 Bad Request\r\n\r\n", "no frame begins with"),
        (lambda request: framing.answer(request.sequence + 1, b"x"), "a call that nobody made"),
        (lambda request: framing.answer(request.sequence, b"garbage!"), "an answer to ExistKey that"),
        (lambda request: framing.ANSWER.pack(framing.MAGIC, request.sequence, 1 << 31, 0), "frame of 2147483664 bytes"),
    ],
    ids=["closed", "http", "another's", "garbage", "endless"],
)
def test_an_odd_answer_is_told_and_calls_fail_at_once_until_it_is_well(
    server: Server, master: Master, answer: Answer, why: str
) -> None:
    server.answer = answer
    with pytest.raises(MasterUnavailable, match=why):
        master.exist(["k"])
    assert why in master.why_not
    assert master.lost.is_set()
    asked = len(server.connections)
    with pytest.raises(MasterUnavailable, match=why):
        master.exist(["k"])
    assert len(server.connections) == asked, "nobody asks while it is known to be gone"
    server.answer = as_it_should
    assert master.revive()
    assert not master.lost.is_set()
    assert master.exist(["k"]) == [True]


def test_a_batch_with_too_few_answers_is_no_answer(server: Server, master: Master) -> None:
    with pytest.raises(MasterUnavailable, match="1 answers to 2 keys"):
        master.exist(["k", "l"])


def test_a_call_that_is_refused_is_counted_and_is_a_code(server: Server, master: Master) -> None:
    server.answer = lambda request: write_refusal(request.sequence, framing.NO_FUNCTION, "what is that?")
    (code,) = master.exist(["k"])
    assert code == -900
    assert master.refusals == 1
    server.answer = as_it_should
    assert master.exist(["k"]) == [True], "the connection is as good as before"


def test_a_master_of_another_release_is_told_from_a_dead_one(server: Server) -> None:
    def older(request: framing.Request) -> bytes:
        name = read_call(request, "x").form.method.name  # type: ignore[union-attr]
        return as_it_should(request) if name == "ServiceReady" else write_refusal(request.sequence, 4, "bad arguments")

    server.answer = older
    with pytest.raises(MasterUnavailable, match="another one, or no master"):
        Store(server.address)


def test_no_answer_ends_a_call_in_bounded_time_and_all_others_with_it(
    server: Server, master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "CALL_SECONDS", 0.5)
    gate = threading.Event()

    def late(request: framing.Request) -> bytes:
        gate.wait(WAIT)
        return as_it_should(request)

    master._idle.pop().close()
    server.answer = late
    outcome: list[str] = []

    def call() -> None:
        try:
            master.exist(["k"])
        except MasterUnavailable as error:
            outcome.append(str(error.fields["detail"]))

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    gate.set()
    assert outcome == ["it does not answer"] * 3


def test_answers_in_pieces_are_put_together(server: Server, master: Master) -> None:
    def slowly(request: framing.Request) -> bytes:
        whole = as_it_should(request)
        (sock,) = server.connections
        for at in range(len(whole) - 1):
            sock.sendall(whole[at : at + 1])
            time.sleep(0.001)
        return whole[-1:]

    server.answer = slowly
    assert master.exist(["k"]) == [True]


def test_few_connections_are_kept(server: Server, master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IDLE", 2)
    at_once(server, master, 5)
    assert len(master._idle) <= 2


@pytest.mark.parametrize("address", ["", "10.0.0.1:99999", "host:port", "a b:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError):
        Master(address, client=bytes(16), tenant="default")


def test_a_port_may_be_left_out() -> None:
    assert Master("10.0.0.1", client=bytes(16), tenant="default")._port == 50051


def test_a_header_is_what_upstream_sends() -> None:
    """The frame's first bytes, so that a slip in the codec shows here, too."""
    assert framing.request(1, 2, b"abc")[:20] == struct.pack("<IIIII", 21, 1, 2, 3, 0)
