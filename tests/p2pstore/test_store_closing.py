"""A store that is closed, wherever and whenever: every call ends, and says why; so does the program."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pstore import P2PStore
from p2pstore.errors import Closed, UsageError
from tests.p2pstore.metadata.servers import EtcdServer, any_binary

MIB = 1 << 20
WAIT = 60.0
SLOW = MIB
"""Bytes a second: so a get of ``big`` is under way for as long as a test lasts."""


@pytest.fixture
def source(url: str) -> Iterator[P2PStore]:
    with P2PStore(url, node="source") as made:
        made.register("big", os.urandom(64 * MIB))  # zeros would not travel
        made.register("small", b"small")
        made._open().upload_limit.set(SLOW)
        yield made


@pytest.fixture
def store(url: str, source: P2PStore) -> Iterator[P2PStore]:
    with P2PStore(url, node="store") as made:
        yield made


class Under:
    """A call in a thread of its own, which has begun."""

    def __init__(self, call: Callable[[Callable[[int, int], None]], object]) -> None:
        self.found: list[BaseException] = []
        self.begun = threading.Event()
        self._call = call
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self.begun.wait(WAIT)

    def _run(self) -> None:
        try:
            self._call(lambda *_: self.begun.set())
        except BaseException as error:
            self.found.append(error)

    def ended(self) -> list[type[BaseException]]:
        self.thread.join(WAIT)
        assert not self.thread.is_alive(), "it waits for ever"
        return [type(error) for error in self.found]


def test_a_get_of_another_thread_ends(store: P2PStore, tmp_path: Path) -> None:
    get = Under(lambda begun: store.get("big", tmp_path / "big", transport="tcp", progress=begun))
    store.close()
    assert get.ended() == [Closed]
    assert not (tmp_path / "big").exists()


def test_a_get_into_memory_ends_and_lets_go_of_the_memory(store: P2PStore) -> None:
    memory = bytearray(64 * MIB)
    get = Under(lambda begun: store.get_into("big", memory, transport="tcp", progress=begun))
    store.close()
    assert get.ended() == [Closed]
    get.found[0].__traceback__ = None
    memory.append(1)


def test_a_register_of_another_thread_ends(store: P2PStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    async def register(*_: object, **__: object) -> Any:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("p2pstore.node.register", register)
    (tmp_path / "f").write_bytes(b"f")
    call = Under(lambda tell: (tell(0, 0), store.register("f", tmp_path / "f")))
    assert begun.wait(WAIT)
    store.close()
    assert call.ended() == [Closed]


def test_closing_twice_and_by_several_threads_is_harmless(store: P2PStore) -> None:
    closers = [threading.Thread(target=store.close) for _ in range(5)]
    for each in closers:
        each.start()
    for each in closers:
        each.join(WAIT)
    store.close()
    assert not any(each.is_alive() for each in closers)


def living() -> Counter[type]:
    """The objects that there are of ours, and of what a node is made of, by their type."""
    gc.collect()
    parts = {"p2pstore", "engine", "aiohttp", "asyncio"}
    return Counter(type(each) for each in gc.get_objects() if str(type(each).__module__).split(".")[0] in parts)


def test_a_process_may_open_and_close_stores_without_end(url: str, tmp_path: Path) -> None:
    def get() -> None:
        with P2PStore(url, node="one") as one, P2PStore(url, node="other") as other:
            one.register("object", os.urandom(MIB))
            other.get("object", tmp_path / "object", transport="tcp", force=True)
            other.unregister("object")
            one.unregister("object")

    get()  # what is kept once may be
    before = living()
    rounds = 5
    for _ in range(rounds):
        get()

    def left() -> dict[str, int]:
        return {kind.__name__: more for kind, more in (living() - before).items() if more >= rounds}

    until = time.monotonic() + WAIT
    while left() and time.monotonic() < until:  # threads that end let go of what they had a moment later
        time.sleep(0.05)
    assert left() == {}


CALLS: dict[str, Callable[[P2PStore, Path], object]] = {
    "node": lambda s, p: s.node,
    "control": lambda s, p: s.control,
    "register": lambda s, p: s.register("v", b"v"),
    "register_many": lambda s, p: s.register_many({"v": p}),
    "get": lambda s, p: s.get("small", p / "w"),
    "get_into": lambda s, p: s.get_into("small", bytearray(5)),
    "list": lambda s, p: s.list(),
    "info": lambda s, p: s.info("small"),
    "unregister": lambda s, p: s.unregister("small"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_later_call_says_that_it_was_closed(url: str, name: str, tmp_path: Path) -> None:
    store = P2PStore(url, node="closed")
    store.close()
    with pytest.raises(Closed, match="this P2PStore was closed"):
        CALLS[name](store, tmp_path)


def test_an_iterator_ends_with_its_store(source: P2PStore) -> None:
    objects = source.list()
    next(objects)
    source.close()
    with pytest.raises(Closed):
        next(objects)


def test_a_callback_may_close(store: P2PStore, tmp_path: Path) -> None:
    with pytest.raises(Closed):
        store.get("big", tmp_path / "big", transport="tcp", progress=lambda *_: store.close())
    store.close()


def test_a_callback_that_calls_is_told_so(store: P2PStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be called from its own thread"):
        store.get("big", tmp_path / "big", transport="tcp", progress=lambda *_: print(store.info("big")))
    assert store.info("small")["name"] == "small"


def test_a_signals_handler_may_close(store: P2PStore, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: store.close())
    try:
        with pytest.raises(Closed):
            store.get(
                "big", tmp_path / "big", transport="tcp", progress=lambda *_: os.kill(os.getpid(), signal.SIGUSR1)
            )
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_interruption_ends_a_get_and_leaves_the_store_as_it_is(store: P2PStore, tmp_path: Path) -> None:
    def interrupt(*_: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        store.get("big", tmp_path / "big", transport="tcp", progress=interrupt)
    assert store.info("small")["name"] == "small"


def test_an_interrupted_close_goes_on(store: P2PStore, tmp_path: Path) -> None:
    get = Under(lambda begun: store.get("big", tmp_path / "big", transport="tcp", progress=begun))
    timer = threading.Timer(0.01, lambda: os.kill(os.getpid(), signal.SIGINT))
    with contextlib.suppress(KeyboardInterrupt):  # it may have ended before, or not have begun
        timer.start()
        store.close()
        timer.join()
        time.sleep(0.05)
    store.close()
    assert get.ended() == [Closed]


def test_the_end_of_an_object_may_close(store: P2PStore) -> None:
    class Owner:
        def __del__(self) -> None:
            store.close()

    owner = Owner()
    del owner
    with pytest.raises(Closed):
        store.info("small")


def test_a_coroutine_of_the_callers_own_loop_may_call_and_close(store: P2PStore) -> None:
    async def work() -> str:
        found = str((await asyncio.to_thread(store.info, "small"))["name"]) + str(store.info("small")["name"])
        store.close()
        return found

    assert asyncio.run(work()) == "smallsmall"


# Programs that end


BEGIN = """
import atexit, os, sys, threading, time
threads = []
atexit.register(lambda: [thread.join(60) for thread in threads])  # before the import, so after the stores' end: the last word of a daemon
from p2pstore import P2PStore
from p2pstore.errors import Closed
source = P2PStore(sys.argv[1], node="source")
source.register("big", os.urandom(64 << 20))
source._open().upload_limit.set(1 << 20)
store = P2PStore(sys.argv[1], node="store")
begun = threading.Event()
def get():
    try:
        store.get("big", sys.argv[2] + "/big", transport="tcp", progress=lambda *_: begun.set())
    except Closed:
        print("Closed", flush=True)
def under_way(**options):
    thread = threading.Thread(target=get, **options)
    threads.append(thread)
    thread.start()
    begun.wait()
    return thread
"""

HASHING = """
os.truncate(os.open(sys.argv[2] + '/huge', os.O_RDWR | os.O_CREAT), 1 << 40)
def register():
    try:
        store.register('huge', sys.argv[2] + '/huge')
    except Closed:
        print('Closed', flush=True)
threads.append(threading.Thread(target=register, daemon=True))
threads[0].start()
time.sleep(0.5)
print('end')
"""

INHERITING = """
import subprocess
code = 'import os; print([n for n in map(int, os.listdir("/proc/self/fd")) if n > 3])'
print(subprocess.run([sys.executable, '-c', code], close_fds=False, capture_output=True).stdout.decode())
"""

PROGRAMS = {
    "nothing is closed": ("print('end')", 0, ["end"]),
    "a get is under way": ("under_way(daemon=True)\nprint('end')", 0, ["end", "Closed"]),
    "it exits with a status": ("under_way(daemon=True)\nsys.exit(3)", 3, ["Closed"]),
    "it fails": ("under_way(daemon=True)\nraise SystemExit(4)", 4, ["Closed"]),
    "it closes at the exit": (
        "atexit.register(lambda: (store.close(), thread.join(), print('exit')))\nthread = under_way(daemon=True)",
        0,
        ["Closed", "exit"],
    ),
    "it calls at the exit": ("atexit.register(lambda: print(store.info('big')['name']))", 0, ["big"]),
    "a thread goes on after the main thread": (
        "source._open().upload_limit.set(0)\nunder_way()\nprint('end')",
        0,
        ["end"],
    ),
    "a file is being hashed": (HASHING, 0, ["end", "Closed"]),
    "a program is run that inherits descriptors": (INHERITING, 0, ["[]"]),
}


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = EtcdServer(any_binary(), tmp_path_factory.mktemp("etcd")).start()
    yield server
    server.close()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends_when(name: str, etcd: EtcdServer, tmp_path: Path) -> None:
    program, status, words = PROGRAMS[name]
    command = [sys.executable, "-c", BEGIN + program, etcd.url, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=WAIT)
    assert (done.returncode, done.stdout.split(), done.stderr) == (status, words, "")
    with P2PStore(etcd.url, node="after") as after:
        assert list(after.list()) == [], "its names went with it"
