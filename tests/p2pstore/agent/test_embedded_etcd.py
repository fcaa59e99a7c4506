"""The embedded etcd with real processes of both releases."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from engine.processes import start_time
from p2pstore.agent import embedded_etcd as embedded
from p2pstore.agent.embedded_etcd import CLIENT_SOCKET, PEER_SOCKET, EmbeddedEtcd, find_etcd, recorded
from p2pstore.agent.etcd_record import RECORD, Recorded, write_record
from p2pstore.errors import EtcdNotStarted, MetadataUnavailable, NoEtcd, StorageError
from p2pstore.metadata.store import Put
from p2pstore.metadata.urls import open_store
from tests.p2pstore.metadata.servers import any_binary, need
from tests.p2pstore.metadata.waiting import WAIT


@pytest.fixture(params=["3.4", "3.5"])
async def etcd(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(tmp_path / "etcd", binary=need(request.param))
    yield server
    await server.stop()


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def put(url: str, key: str) -> None:
    store = open_store(url)
    assert await store.commit([Put(key, b"x")]) is not None
    await store.close()


async def has(url: str, key: str) -> bool:
    store = open_store(url)
    item = await store.get(key)
    await store.close()
    return item is not None


def listening(pid: int) -> list[str]:
    """The addresses of the TCP sockets on which a process listens."""
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    inodes = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    return [row[1] for row in map(str.split, lines) if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def start_and_die(directory: Path) -> int:
    """Start one from a process that kills itself; how that ended."""
    code = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from p2pstore.agent.embedded_etcd import EmbeddedEtcd\n"
        "etcd = EmbeddedEtcd(Path(sys.argv[1]), binary=sys.argv[2])\n"
        "asyncio.run(etcd.start())\n"
        "os.kill(os.getpid(), 9)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(directory), any_binary()], check=False, timeout=60
    ).returncode


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


async def test_from_nothing_to_a_store_and_back(etcd: EmbeddedEtcd) -> None:
    assert recorded(etcd.directory) is None
    assert not etcd.alive()
    url = await etcd.start()
    assert url == f"etcd+unix://{etcd.directory}/{CLIENT_SOCKET}"
    assert etcd.url == url
    assert etcd.alive()
    record = recorded(etcd.directory)
    assert record is not None
    assert (record.pid, record.url) == (etcd.pid, url)
    assert os.getsid(etcd.pid) == etcd.pid, "Ctrl-C in the agent's terminal must not reach it"
    await put(url, "a")
    pid = etcd.pid
    await etcd.stop()
    assert recorded(etcd.directory) is None
    assert not etcd.alive()
    assert start_time(pid) == 0
    await etcd.stop()


async def test_no_other_user_reaches_it(etcd: EmbeddedEtcd) -> None:
    """It has no port; its sockets can be written, which is what it takes to connect, by their owner alone."""
    await etcd.start()
    assert not listening(etcd.pid)
    for name in (CLIENT_SOCKET, PEER_SOCKET):
        assert stat.S_IMODE((etcd.directory / name).stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(etcd.directory.stat().st_mode) == 0o700


async def test_our_secrets_do_not_reach_it(etcd: EmbeddedEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOONCAKE_SECRET", "a secret of the cluster")
    monkeypatch.setenv("MOONCAKE_ETCD_PASSWORD", "a password")
    monkeypatch.setenv("MC_REDIS_PASSWORD", "upstream's password")
    await etcd.start()
    environment = environment_of(etcd.pid)
    assert b"MOONCAKE" not in environment
    assert b"password" not in environment
    assert b"PATH=" in environment


async def test_nor_do_they_reach_a_binary_that_is_asked_for_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOONCAKE_SECRET", "a secret of the cluster")
    binary = tmp_path / "etcd-of-somebody"
    binary.write_text(f"#!/bin/sh\nenv >> '{tmp_path}/seen'\n")
    binary.chmod(0o755)
    with pytest.raises(MetadataUnavailable):
        await EmbeddedEtcd(tmp_path / "etcd", binary=str(binary)).start()
    seen = (tmp_path / "seen").read_text()
    assert "PATH=" in seen
    assert "a secret" not in seen


async def test_a_living_one_is_adopted(etcd: EmbeddedEtcd) -> None:
    url = await etcd.start()
    await put(url, "a")
    again = EmbeddedEtcd(etcd.directory, binary="/nonexistent/etcd")
    assert await again.start() == url
    assert again.pid == etcd.pid
    assert await has(url, "a")
    await again.stop()
    assert not etcd.alive()


async def test_it_outlives_the_process_that_started_it(tmp_path: Path) -> None:
    assert start_and_die(tmp_path) == -signal.SIGKILL
    record = recorded(tmp_path)
    assert record is not None
    etcd = EmbeddedEtcd(tmp_path)
    assert await etcd.start() == record.url
    assert etcd.pid == record.pid
    await etcd.stop()


async def test_after_a_kill_it_comes_back_where_it_was_with_its_content(etcd: EmbeddedEtcd) -> None:
    url = await etcd.start()
    await put(url, "a")
    first = etcd.pid
    noted: list[str] = []
    supervisor = asyncio.create_task(etcd.supervise(lambda error: noted.append(str(error))))
    os.kill(first, signal.SIGKILL)
    await until(lambda: etcd.alive() and etcd.pid != first)
    assert etcd.url == url
    assert noted == [f"metadata server {url} does not answer: its process {first} died, or its socket was removed"]
    assert await has(url, "a")
    supervisor.cancel()
    await asyncio.gather(supervisor, return_exceptions=True)


async def test_the_supervisor_leaves_a_stopped_one_alone(etcd: EmbeddedEtcd) -> None:
    await etcd.start()
    supervisor = asyncio.create_task(etcd.supervise())
    await etcd.stop()
    await asyncio.wait_for(supervisor, WAIT)
    assert recorded(etcd.directory) is None


async def test_a_stale_socket_is_replaced(etcd: EmbeddedEtcd) -> None:
    url = await etcd.start()
    await put(url, "a")
    os.kill(etcd.pid, signal.SIGKILL)
    await until(lambda: not etcd.alive())
    assert (etcd.directory / CLIENT_SOCKET).is_socket()
    assert await etcd.start() == url
    assert await has(url, "a")


async def test_one_that_an_older_version_left_on_tcp_is_replaced(tmp_path: Path) -> None:
    etcd = EmbeddedEtcd(tmp_path, binary=any_binary())
    url = await etcd.start()
    await put(url, "a")
    first = etcd.pid
    record = json.loads((tmp_path / RECORD).read_text())
    (tmp_path / RECORD).write_text(json.dumps({**record, "url": "etcd://127.0.0.1:2379", "port": 2379}))
    assert await EmbeddedEtcd(tmp_path, binary=any_binary()).start() == url
    assert start_time(first) == 0
    assert await has(url, "a")
    await etcd.stop()


async def test_its_sockets_may_lie_elsewhere_and_deep(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("é %23 " * 10)
    deep.mkdir(parents=True)
    etcd = EmbeddedEtcd(tmp_path / "etcd", deep, binary=any_binary())
    url = await etcd.start()
    assert url == f"etcd+unix://{deep}/{CLIENT_SOCKET}"
    await put(url, "a")
    assert await has(url, "a")
    await etcd.stop()


async def test_a_spoilt_data_directory_is_moved_aside(etcd: EmbeddedEtcd) -> None:
    url = await etcd.start()
    await put(url, "a")
    await etcd.stop()
    for path in etcd.data_path.rglob("*"):
        if path.is_file():
            path.write_bytes(b"\xff" * 100)
    url = await etcd.start()
    assert not await has(url, "a")
    assert len(list(etcd.directory.glob("data.bad-*"))) == 1
    for path in etcd.data_path.rglob("*.wal"):
        path.write_bytes(b"\xff" * 100)
    await etcd.stop()
    for path in etcd.data_path.rglob("*.wal"):
        path.write_bytes(b"\xff" * 100)
    await etcd.start()
    assert len(list(etcd.directory.glob("data.bad-*"))) == 1, "spoilt directories do not pile up"


async def test_data_stay_where_they_are_not_what_keeps_it_from_starting(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    """A shell's limit, say. Twice, since what was moved aside before is dropped."""
    url = await etcd.start()
    await put(url, "a")
    await etcd.stop()
    limited = tmp_path / "limited"
    limited.write_text(f'#!/bin/sh\nulimit -n 20\nexec {need("3.5")} "$@"\n')
    limited.chmod(0o755)
    for _ in range(2):
        with pytest.raises(EtcdNotStarted, match=r"file descriptor limit .* \(limit 20, ") as caught:
            await EmbeddedEtcd(etcd.directory, binary=str(limited)).start()
        assert "stacktrace" not in str(caught.value)
    assert await has(await etcd.start(), "a")
    assert [path.name for path in etcd.directory.glob("data*")] == ["data"]


async def test_data_stay_where_it_is_only_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etcd = EmbeddedEtcd(tmp_path / "etcd", binary=any_binary())
    await put(await etcd.start(), "a")
    await etcd.stop()
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\n[ $1 = --version ] || exec sleep 600\n")
    slow.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "START_TIMEOUT", 0.5)
        with pytest.raises(EtcdNotStarted, match=r"has not answered for 0.5 s: see .*etcd.log"):
            await EmbeddedEtcd(etcd.directory, binary=str(slow)).start()
    assert await has(await etcd.start(), "a")
    await etcd.stop()


async def test_a_newer_release_goes_on_with_what_an_older_one_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which etcd is first on PATH changes when the environment that has the wheel's is activated."""
    older, newer = need("3.4"), need("3.5")
    etcd = EmbeddedEtcd(tmp_path)
    monkeypatch.setattr(embedded, "find_etcds", lambda: [newer])
    await put(await etcd.start(), "a")
    await etcd.stop()
    monkeypatch.setattr(embedded, "find_etcds", lambda: [older, newer])
    assert await has(await etcd.start(), "a")
    await etcd.stop()


async def test_one_that_cannot_be_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    monkeypatch.setattr(embedded, "find_etcds", lambda: [str(broken), any_binary()])
    etcd = EmbeddedEtcd(tmp_path / "etcd")
    await put(await etcd.start(), "a")
    await etcd.stop()


async def test_what_a_slow_one_has_is_given_to_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer release would change it so that the first takes it no more."""
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\n[ $1 = --version ] || exec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setattr(embedded, "find_etcds", lambda: [str(slow), any_binary()])
    monkeypatch.setattr(embedded, "START_TIMEOUT", 0.5)
    with pytest.raises(EtcdNotStarted, match="has not answered"):
        await EmbeddedEtcd(tmp_path / "etcd").start()


async def test_a_frozen_one_is_replaced(etcd: EmbeddedEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "ADOPT_TIMEOUT", 0.5)
    monkeypatch.setattr(embedded, "STOP_TIMEOUT", 0.5)
    await etcd.start()
    first, send = etcd.pid, embedded.ProcessHandle.send

    def then_patiently(self: embedded.ProcessHandle, number: int) -> None:
        if number == signal.SIGKILL:  # of which it does end, however slow the day
            monkeypatch.setattr(embedded, "STOP_TIMEOUT", WAIT)
        send(self, number)

    monkeypatch.setattr(embedded.ProcessHandle, "send", then_patiently)
    os.kill(first, signal.SIGSTOP)
    again = EmbeddedEtcd(etcd.directory, binary=any_binary())
    await again.start()
    assert again.pid != first
    assert not etcd.alive()
    await again.stop()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"pid": "x"}',
        '{"pid": 1, "started": 1, "url": "", "boot": ""}',
    ],
)
async def test_a_record_that_makes_no_sense_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    assert recorded(tmp_path) is None
    etcd = EmbeddedEtcd(tmp_path, binary=any_binary())
    await etcd.stop()
    await etcd.start()
    assert recorded(tmp_path) is not None
    await etcd.stop()


async def test_another_process_under_the_recorded_number_is_safe(
    tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    etcd = EmbeddedEtcd(tmp_path, binary=any_binary())
    await etcd.start()
    await etcd.stop()
    record = json.loads((tmp_path / RECORD).read_text())
    (tmp_path / RECORD).write_text(json.dumps({**record, "pid": stranger.pid}))
    assert recorded(tmp_path) is None
    await etcd.stop()
    assert stranger.poll() is None


async def test_no_etcd_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded, "distro_binary", lambda: None)
    with pytest.raises(NoEtcd, match="there is none on this machine") as caught:
        await EmbeddedEtcd(tmp_path / "etcd").start()
    assert "--metadata" in caught.value.hint


async def test_a_directory_that_is_gone_is_no_matter_of_an_etcd_to_install(tmp_path: Path) -> None:
    sockets = tmp_path / "run"
    with pytest.raises(StorageError, match=f"{sockets}.*No such file or directory"):
        await EmbeddedEtcd(tmp_path / "etcd", sockets, binary=any_binary()).start()


async def test_without_a_process_for_it_no_path_is_blamed_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    binary = any_binary()
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(StorageError, match=f"^{binary}: Resource temporarily unavailable") as caught:
        await EmbeddedEtcd(tmp_path / "etcd", binary=binary).start()
    assert "processes" in caught.value.hint


async def test_one_that_cannot_be_recorded_does_not_live_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def refuse(_: Path, record: Recorded) -> None:
        started.append(record.pid)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(embedded, "write_record", refuse)
    with pytest.raises(StorageError, match="No space left"):
        await EmbeddedEtcd(tmp_path / "etcd", binary=any_binary()).start()
    assert [start_time(pid) for pid in started] == [0]


async def test_a_binary_that_is_no_etcd(tmp_path: Path) -> None:
    for binary in ("/bin/false", "/nonexistent/etcd"):
        with pytest.raises(MetadataUnavailable):
            await EmbeddedEtcd(tmp_path / "etcd", binary=binary).start()
        assert recorded(tmp_path / "etcd") is None


def test_the_wheels_script_is_passed_over_for_its_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, binary = tmp_path / "etcd", tmp_path / "binary"
    for path, text in ((script, "#!/usr/bin/env python3\n"), (binary, "\x7fELF")):
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded, "distro_binary", lambda: str(binary))
    assert find_etcd() == str(binary)
    script.write_text("\x7fELF")
    assert find_etcd() == str(script)


async def test_etcd_settings_in_the_environment_do_not_reach_it(
    etcd: EmbeddedEtcd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ETCD_CONFIG_FILE", str(tmp_path / "missing.yaml"))
    await etcd.start()
    assert etcd.alive()


def test_the_record_is_its_owners_alone_and_follows_no_link(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("somebody's")
    for name in (RECORD, f"{RECORD}.{os.getpid()}.tmp"):
        (tmp_path / name).symlink_to(other)
    write_record(tmp_path, Recorded(os.getpid(), start_time(os.getpid()) or 0, "etcd+unix:///x"))
    assert (tmp_path / RECORD).lstat().st_mode == stat.S_IFREG | 0o600
    assert recorded(tmp_path) is not None
    assert other.read_text() == "somebody's"
