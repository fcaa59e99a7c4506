"""A P2PStore in forked children: they are refused in words, keep nothing, and leave the parent's node as it is."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.errors import ForkedProcess, UsageError
from p2pstore import P2PStore
from p2pstore.agent.client import AgentClient
from p2pstore.agent.home import Home
from p2pstore.node import Node
from tests.forking import WAIT, context, in_child
from tests.p2pstore.metadata.servers import EtcdServer, any_binary

MIB = 1 << 20


@pytest.fixture
def store(url: str) -> Iterator[P2PStore]:
    with P2PStore(url, node="parent") as made:
        made.register("w", b"x" * 1000)
        yield made


CALLS: dict[str, Callable[[P2PStore, Path], object]] = {
    "node": lambda s, p: s.node,
    "control": lambda s, p: s.control,
    "register": lambda s, p: s.register("v", b"v"),
    "register_many": lambda s, p: s.register_many({"v": p}),
    "get": lambda s, p: s.get("w", p / "w"),
    "get_into": lambda s, p: s.get_into("w", bytearray(1000)),
    "load_tensors": lambda s, p: s.load_tensors("w", framework="numpy"),
    "iter_tensors": lambda s, p: next(s.iter_tensors("w", framework="numpy")),
    "list": lambda s, p: list(s.list()),
    "info": lambda s, p: s.info("w"),
    "history": lambda s, p: s.history("w"),
    "watch": lambda s, p: next(s.watch("w", initial=True, timeout=60)),
    "tag": lambda s, p: s.tag("w", "v1"),
    "tags": lambda s, p: s.tags("w"),
    "untag": lambda s, p: s.untag("w:v1"),
    "unregister": lambda s, p: s.unregister("w"),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_call_says_spawn(store: P2PStore, name: str, tmp_path: Path) -> None:
    with pytest.raises(ForkedProcess, match=r"this P2PStore belongs to process .*'spawn'"):
        in_child(lambda: CALLS[name](store, tmp_path))
    assert [entry["name"] for entry in store.list()] == ["w"]


def test_every_public_name_of_a_store_is_among_them() -> None:
    assert {name for name in vars(P2PStore) if not name.startswith("_")} == CALLS.keys() | {"close"}


def test_an_iterator_that_was_begun_ends_in_the_child(store: P2PStore) -> None:
    store.register("v", b"v")
    objects = store.list()
    assert next(objects)["name"] == "v"
    with pytest.raises(ForkedProcess):
        in_child(lambda: next(objects))
    assert next(objects)["name"] == "w"


def test_a_nodes_operations_are_refused_on_the_childs_own_loop(store: P2PStore) -> None:
    node = store._open()
    calls: list[Callable[[], object]] = [
        lambda: asyncio.run(node.info("w")),
        lambda: asyncio.run(node.unregister("w")),
        lambda: asyncio.run(node.listing("", limit=0, after="")),
        lambda: asyncio.run(node.verify("w", lambda *_: None)),
        node.status,
    ]
    for call in calls:
        with pytest.raises(ForkedProcess, match="this node belongs"):
            in_child(call)
    assert in_child(lambda: asyncio.run(Node.close(node))) is None
    assert store.info("w")["name"] == "w"


def test_the_end_of_a_child_is_not_the_end_of_its_parents_node(store: P2PStore, tmp_path: Path) -> None:
    def end() -> bool:
        with store:
            pass
        store.close()
        gc.collect()
        return True

    assert in_child(end)
    store.get("w", tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == b"x" * 1000


def test_a_child_makes_a_store_of_its_own(store: P2PStore, url: str) -> None:
    def work() -> list[str]:
        with P2PStore(url, node="child") as own:
            own.register("mine", b"mine")
            got = bytearray(4)
            own.get_into("mine", got)
            return [entry["name"] for entry in own.list()] + [got.decode()]

    assert in_child(work) == ["mine", "mine"], "memory:// is of one process"


def test_a_child_in_the_middle_of_everything_has_no_socket_and_no_lock(
    store: P2PStore, url: str, tmp_path: Path
) -> None:
    """A get is under way, and a child sees its connections, locks and files at the fork.

    What stands there in one child alone was just being made.
    """

    def opened() -> set[str]:
        found = set()
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/self/fd/{name}"))
        return {name for name in found if name.startswith("socket:") or "journal" in name}

    with P2PStore(url, node="getter") as getter:
        data = os.urandom(64 * MIB)  # zeros would not travel
        store.register("big", data)
        getting = threading.Thread(target=lambda: getter.get("big", tmp_path / "big", transport="tcp"))
        ours = opened()
        assert ours, "the parent has some"
        others = in_child(opened)  # of what the tests' runner has
        getting.start()
        samples = []
        while getting.is_alive():
            samples.append(in_child(opened) - others)
        getting.join(WAIT)
        samples.append(in_child(opened) - others)
        assert others < ours
        for one, next_one in itertools.pairwise(samples):
            assert not one & next_one
    assert (tmp_path / "big").read_bytes() == data


def test_multiprocessing_workers_hear_it_and_the_parent_goes_on(store: P2PStore) -> None:
    """As the workers of a DataLoader do, which use what their dataset has."""
    _Dataset.store = store
    with context().Pool(2) as pool:
        with pytest.raises(ForkedProcess, match="'spawn'"):
            pool.apply(_Dataset().item, (0,))
        pool.close()
        pool.join()
    assert store.info("w")["name"] == "w"


class _Dataset:
    store: P2PStore

    def item(self, _: int) -> object:
        return self.store.info("w")


@pytest.mark.parametrize("how", ["spawn", "forkserver"])
def test_it_cannot_be_sent_to_another_process(store: P2PStore, how: str) -> None:
    import multiprocessing

    process = multiprocessing.get_context(how).Process(target=print, args=(store,))
    with pytest.raises(UsageError, match=r"this P2PStore works in one process, .* make one there"):
        process.start()


def test_a_call_to_the_agent_that_was_begun_is_not_read_by_a_child(tmp_path: Path) -> None:
    import socket

    home = Home.resolve(tmp_path)
    served = socket.socket(socket.AF_UNIX)
    home.socket.parent.mkdir(parents=True, exist_ok=True)
    with served:
        served.bind(str(home.socket))
        served.listen()

        def serve() -> None:
            with served.accept()[0] as client:
                asked = b""
                while not asked.endswith(b"}"):
                    asked += client.recv(1 << 16)
                client.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"event": "one"}\n{"event": "two"}\n')

        thread = threading.Thread(target=serve)
        thread.start()
        events = AgentClient(home).verify("w")
        assert next(events) == {"event": "one"}
        with pytest.raises(ForkedProcess, match="this call to the agent"):
            in_child(lambda: next(events))
        assert next(events) == {"event": "two"}
        thread.join(WAIT)


# With etcd, whose client is gRPC. In programs of their own: the tests' own process must not have gRPC open at a fork.

BEGIN = f"""
import contextlib, faulthandler, gc, os, sys, threading, time
from p2pstore import P2PStore
from p2pstore.errors import MooncakeError
from engine.etcd.connections import connections_to
url = sys.argv[1]
endpoint = url.partition("//")[2]
def child(work):
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        faulthandler.dump_traceback_later({WAIT:g} - 10, exit=True)  # what hangs says where
        work()
        sys.stdout.flush()
        os._exit(0)
    return os.waitpid(pid, 0)[1]
def own():
    try:
        with P2PStore(url, node="child") as store:
            print("made", len(list(store.list())), flush=True)
    except MooncakeError as error:
        print(type(error).__name__, error, flush=True)
"""


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EtcdServer(any_binary(), tmp_path_factory.mktemp("etcd")).start()
    yield server.url
    server.close()


def run(program: str, url: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BEGIN + program, url],
        check=False,
        capture_output=True,
        text=True,
        timeout=WAIT,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_child_of_a_connection_to_etcd_is_told_about_grpc(etcd: str) -> None:
    status, out, err = run(
        "store = P2PStore(url, node='a')\nprint(child(own))\nprint(len(list(store.list())))\nstore.close()\n", etcd
    )
    told, ended, listed = out.splitlines()
    assert (status, ended, listed, err) == (0, "0", "0", "")
    assert told.startswith(f"ForkedFromEtcd {etcd} cannot be reached from here")
    assert "'spawn'" in told


def test_a_child_of_a_store_that_was_closed_makes_its_own(etcd: str) -> None:
    status, out, err = run("P2PStore(url, node='b').close()\nprint(child(own))\n", etcd)
    assert (status, out, err) == (0, "made 0\n0\n", "")


def test_a_child_of_a_closed_store_whose_channel_lives_on_is_told_about_grpc(etcd: str) -> None:
    """It died of signal 11: gRPC keeps what belongs to its threads as long as anything refers to a channel."""
    program = (
        "import engine.etcd.client as client\n"
        "kept, make = [], client.grpc.aio.insecure_channel\n"
        "client.grpc.aio.insecure_channel = lambda *a, **k: kept.append(make(*a, **k)) or kept[-1]\n"
        "P2PStore(url, node='c').close()\nprint(child(own))\n"
    )
    status, out, err = run(program, etcd)
    told, ended = out.splitlines()
    assert (status, ended, err) == (0, "0", "")
    assert told.startswith("ForkedFromEtcd ")


def test_a_child_keeps_no_connection_to_etcd_open(etcd: str) -> None:
    status, out, err = run(
        "store = P2PStore(url, node='c')\nprint(len(connections_to([endpoint])) > 0)\n"
        "child(lambda: print(connections_to([endpoint])))\nprint(len(list(store.list())))\nstore.close()\n",
        etcd,
    )
    assert (status, out, err) == (0, "True\n[]\n0\n", "")


def test_a_child_ends_as_any_program_and_the_parent_goes_on(etcd: str, tmp_path: Path) -> None:
    """Its interpreter ends in full: garbage is collected, and what was left for the exit is called."""
    status, out, err = run(
        f"store = P2PStore(url, node='d', state=__import__('pathlib').Path({str(tmp_path)!r}))\n"
        "store.register('d', b'd' * 100)\n"
        "pid = os.fork()\n"
        "if not pid:\n    del store\n    gc.collect()\n    print('child')\n    sys.exit(0)\n"
        "print(os.waitpid(pid, 0)[1])\n"
        "time.sleep(0.5)\nprint(store.info('d')['name'])\n"
        "got = bytearray(100)\nstore.get_into('d', got)\nprint(got == b'd' * 100)\nstore.close()\n",
        etcd,
    )
    assert (status, out.split(), err) == (0, ["child", "0", "d", "True"], "")
