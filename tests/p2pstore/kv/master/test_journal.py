"""The state of a master on disk: what is known again after whatever ended it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.files.system import system
from engine.rpc.codes import Code
from engine.rpc.messages import ObjectMeta, ReplicateConfig
from p2pstore.kv.errors import JournalFailed, StateOfOtherVersion, StateTaken, StateUnusable
from p2pstore.kv.master import journal as journals
from p2pstore.kv.master import recovery
from p2pstore.kv.master.journal import Journal
from p2pstore.kv.pool.pool import Pool
from p2pstore.kv.pool.settings import PoolSettings
from tests.clocks import Clock
from tests.p2pstore.kv.pool.pools import ident, segment

CLIENT = ident("a")
SETTINGS = PoolSettings()


class Kept:
    """A pool with its journal, as a master has them."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.journal, self.pool = Journal.open(directory, SETTINGS, self.clock)

    def mount(self) -> None:
        assert self.pool.remount(CLIENT, [segment("a")]) is Code.OK
        self.keep()

    def keep(self) -> None:
        self.journal.append(self.pool.take_log())

    def start(self, *keys: str, size: int = 100) -> None:
        self.pool.put_start(CLIENT, keys, [size] * len(keys), ReplicateConfig())
        self.keep()

    def put(self, *keys: str, size: int = 100) -> None:
        self.start(*keys, size=size)
        assert set(self.pool.put_end(CLIENT, [ObjectMeta(key) for key in keys])) == {Code.OK}
        self.keep()

    def killed(self) -> None:
        """What is left after kill -9: the lock goes with the process."""
        os.close(self.journal._descriptor)
        self.journal._descriptor = -1
        os.close(self.journal._lock[0])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


def keys_of(directory: Path) -> set[str]:
    """What the next master knows, once the client is back."""
    kept = Kept(directory)
    kept.mount()
    found = set(kept.pool.keys())
    kept.journal.close()
    return found


@pytest.mark.parametrize("ended", ["closed", "killed"])
def test_what_was_put_is_there_for_the_next_master(directory: Path, ended: str) -> None:
    kept = Kept(directory)
    kept.mount()
    kept.put("k", "l", "m")
    kept.start("writing")
    kept.pool.remove(["l"])
    kept.keep()
    kept.journal.close() if ended == "closed" else kept.killed()
    for _ in range(3):
        assert keys_of(directory) == {"k", "m"}
    assert len(list(directory.iterdir())) == 3, "lock, log and snapshot"


def test_the_directory_is_its_owners_alone(directory: Path) -> None:
    kept = Kept(directory)
    assert directory.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in directory.iterdir())
    kept.journal.close()
    kept.journal.close()


def test_two_masters_do_not_have_one_directory(directory: Path) -> None:
    kept = Kept(directory)
    with pytest.raises(StateTaken, match="another master keeps its state in"):
        Kept(directory)
    kept.journal.close()
    Kept(directory).journal.close()


def test_a_log_that_ends_at_any_byte_gives_what_was_whole_before_it(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "fsync", lambda descriptor: None)  # it takes the time of hundreds of masters
    kept = Kept(directory)
    kept.mount()
    ends: list[tuple[int, set[str]]] = [(kept.journal._length, set())]
    there: set[str] = set()
    for number in range(4):
        kept.put(f"k{number}")
        there.add(f"k{number}")
        ends.append((kept.journal._length, set(there)))
    kept.pool.remove(["k2"])
    kept.keep()
    ends.append((kept.journal._length, there - {"k2"}))
    (log,) = directory.glob("log-*")
    kept.killed()
    first = ends[0][0]
    for cut in range(first, ends[-1][0] + 1):
        copy = tmp_path / "copy"
        shutil.copytree(directory, copy)
        os.truncate(copy / log.name, cut)
        assert keys_of(copy) == next(keys for end, keys in reversed(ends) if end <= cut)
        shutil.rmtree(copy)
    for cut in range(0, first, 11):
        copy = tmp_path / "copy"
        shutil.copytree(directory, copy)
        os.truncate(copy / log.name, cut)
        assert keys_of(copy) == set()
        shutil.rmtree(copy)


def test_a_byte_that_changed_ends_the_log_there(directory: Path) -> None:
    kept = Kept(directory)
    kept.mount()
    kept.put("k")
    at = kept.journal._length
    kept.put("l")
    (log,) = directory.glob("log-*")
    kept.killed()
    data = bytearray(log.read_bytes())
    data[at + 40] ^= 1
    log.write_bytes(data)
    assert keys_of(directory) == {"k"}


def test_a_damaged_snapshot_is_said(directory: Path) -> None:
    kept = Kept(directory)
    kept.mount()
    kept.put("k")
    kept.journal.close()
    Kept(directory).journal.close()
    (snapshot,) = directory.glob("snapshot-*")
    data = bytearray(snapshot.read_bytes())
    data[-20] ^= 1
    snapshot.write_bytes(data)
    with pytest.raises(StateUnusable, match="damaged"):
        Kept(directory)


def test_records_of_another_version_are_said(directory: Path) -> None:
    kept = Kept(directory)
    kept.journal.append([b"\x77of the future"])
    kept.journal.close()
    with pytest.raises(StateOfOtherVersion, match="another version"):
        Kept(directory)


@pytest.mark.parametrize("kind", ["snapshot", "log"])
def test_files_of_another_version_are_said_and_stay_as_they_are(directory: Path, kind: str) -> None:
    kept = Kept(directory)
    kept.mount()
    kept.put("k")
    kept.journal.close()
    (file,) = directory.glob(f"{kind}-*")
    data = b"MOONKV2\n" + file.read_bytes()[8:]
    file.write_bytes(data)
    with pytest.raises(StateOfOtherVersion, match="another version"):
        Kept(directory)
    assert file.read_bytes() == data


def test_after_a_power_cut_nothing_is_believed_that_was_not_closed(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What had been evicted last may be in the log still, and its bytes another value's."""
    kept = Kept(directory)
    kept.mount()
    kept.put("k")
    kept.killed()
    for module in (journals, recovery):
        monkeypatch.setattr(module, "this_boot", lambda: b"another boot    ")
    assert keys_of(directory) == set()
    assert "begins empty" in caplog.text


def test_a_machine_that_was_shut_down_in_order_has_its_state(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(directory)
    kept.mount()
    kept.put("k")
    kept.journal.close()
    for module in (journals, recovery):
        monkeypatch.setattr(module, "this_boot", lambda: b"another boot    ")
    assert keys_of(directory) == {"k"}


@pytest.mark.parametrize("made", ["a file is in its place", "its parent is a file", "the log cannot be made"])
def test_a_directory_that_cannot_be_used_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str) -> None:
    directory = tmp_path / "state"
    if made == "a file is in its place":
        directory.write_text("")
    elif made == "its parent is a file":
        (tmp_path / "file").write_text("")
        directory = tmp_path / "file" / "state"
    else:
        monkeypatch.setattr(system, "open", _refusing(system.open, "log-"))
    with pytest.raises(StateUnusable, match=r"the master's state in .* cannot be used: ") as error:
        Kept(directory)
    assert "another directory" in error.value.hint


def _refusing(call: Callable[..., int], name: str) -> Callable[..., int]:
    def refused(path: object, *arguments: int) -> int:
        if name in str(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        return call(path, *arguments)

    return refused


# -- a disk that is full


class Disk:
    """Takes so many bytes of the log, then none, until there is room again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 1 << 60
        self._write = os.write
        monkeypatch.setattr(system, "write", self)

    def __call__(self, descriptor: int, data: memoryview) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        some = self._write(descriptor, data[: self.room])
        self.room -= some
        return some


@contextlib.asynccontextmanager
async def keeping(journal: Journal) -> Iterator[None]:  # type: ignore[misc]
    task = asyncio.create_task(journal.keep())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


async def test_a_full_disk_refuses_puts_and_all_is_kept_once_there_is_room(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "PAUSE_S", 0.01)
    disk = Disk(monkeypatch)
    kept = Kept(directory)
    kept.mount()
    kept.put("k")
    disk.room = 10
    with pytest.raises(JournalFailed, match="no space left on device; it takes no new values until it is"):
        kept.put("l")
    assert kept.journal.refusing == "no space left on device"
    assert kept.pool.exist(["k"]) == [True], "what is there is read"
    async with keeping(kept.journal):
        await asyncio.sleep(0.05)
        assert kept.journal.refusing
        kept.pool.put_end(CLIENT, [ObjectMeta("l")])
        with pytest.raises(JournalFailed):
            kept.keep()
        disk.room = 1 << 60
        await until(lambda: not kept.journal.refusing)
    kept.put("m")
    kept.killed()
    assert keys_of(directory) == {"k", "l", "m"}


async def test_what_was_owed_too_long_is_said_by_a_snapshot(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "PAUSE_S", 0.01)
    monkeypatch.setattr(journals, "MAX_OWED", 100)
    disk = Disk(monkeypatch)
    kept = Kept(directory)
    kept.mount()
    kept.put("k", "l")
    disk.room = 0
    with pytest.raises(JournalFailed):
        kept.start("m", "n", "o", "p")
    kept.pool.remove(["k"])
    with pytest.raises(JournalFailed):
        kept.keep()
    shutil.copytree(directory, directory.with_name("then"))
    disk.room = 1 << 60
    assert keys_of(directory.with_name("then")) == {"k", "l"}
    async with keeping(kept.journal):
        await until(lambda: not kept.journal.refusing)
    kept.put("q")
    kept.killed()
    assert keys_of(directory) == {"l", "q"}


async def test_a_snapshot_that_finds_no_room_leaves_the_log_as_it_is(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journals, "PAUSE_S", 0.01)
    kept = Kept(directory)
    kept.mount()
    kept.put("k")
    monkeypatch.setattr(journals, "MIN_LOG", 1)
    monkeypatch.setattr(journals, "GROWTH", 0)
    monkeypatch.setattr(system, "rename", _failing_rename)
    async with keeping(kept.journal):
        await until(lambda: "no snapshot of the master's state" in caplog.text)
        kept.put("l")
    assert not kept.journal.refusing
    assert not any(name.endswith(".part") for name in os.listdir(directory))
    kept.killed()
    monkeypatch.undo()
    assert keys_of(directory) == {"k", "l"}


def _failing_rename(old: Path, new: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_long_log_is_replaced_while_the_master_goes_on(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "PAUSE_S", 0.01)
    monkeypatch.setattr(journals, "MIN_LOG", 2000)
    monkeypatch.setattr(journals, "SLICE", 10)
    kept = Kept(directory)
    kept.mount()
    number = itertools.count()
    begun = kept.journal._number
    async with keeping(kept.journal):
        while kept.journal._number < begun + 3:
            now = next(number)
            kept.put(f"k{now}")
            kept.pool.remove([f"k{now - 40}"])
            kept.keep()
            await asyncio.sleep(0)
        await until(lambda: sum(name.startswith("log-") for name in os.listdir(directory)) == 1)
    there = set(kept.pool.keys())
    kept.killed()
    assert keys_of(directory) == there
    assert len(os.listdir(directory)) == 3


# -- kill -9

WRITER = """
import asyncio, sys, time
from pathlib import Path
from engine.rpc.messages import ObjectMeta, ReplicateConfig
from p2pstore.kv.master import journal as journals
from p2pstore.kv.master.journal import Journal
from p2pstore.kv.pool.settings import PoolSettings
from tests.p2pstore.kv.pool.pools import ident, segment

journals.MIN_LOG, journals.PAUSE_S, journals.SLICE = 20_000, 0.01, 20

async def main():
    journal, pool = Journal.open(Path(sys.argv[1]), PoolSettings(), time.monotonic)
    client = ident("a")
    pool.remount(client, [segment("a", 8 << 20)])
    task = asyncio.create_task(journal.keep())
    say = sys.stdout.write
    for number in range(1_000_000):
        key, never, gone = (f"{sys.argv[2]}-{number}-{what}" for what in ("kept", "never", "gone"))
        pool.put_start(client, [key, never, gone], [1000] * 3, ReplicateConfig(with_hard_pin=False))
        journal.append(pool.take_log())
        pool.put_end(client, [ObjectMeta(key), ObjectMeta(gone)])
        pool.put_revoke(client, [never])
        pool.remove([gone])
        say(f"+{key}\\n")  # before it is kept: it may be there
        sys.stdout.flush()
        journal.append(pool.take_log())
        say(f"={key}\\n")  # its end was answered: it must be there
        sys.stdout.flush()
        if number > 300:
            old = f"{sys.argv[2]}-{number - 300}-kept"
            say(f"?{old}\\n")  # it is being removed: both are right
            sys.stdout.flush()
            pool.remove([old])
            journal.append(pool.take_log())
            say(f"-{old}\\n")
            sys.stdout.flush()
        if number % 20 == 0:
            await asyncio.sleep(0)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_master_that_is_killed_loses_nothing_that_was_answered_and_shows_nothing_else(
    directory: Path, seed: int
) -> None:
    chance = random.Random(seed)
    must: set[str] = set()
    for life in range(6):
        may: set[str] = set()
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory), f"{seed}-{life}"],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4],
        )  # fmt: skip
        assert process.stdout is not None
        wanted = chance.randrange(200, 3000)
        for count, line in enumerate(process.stdout):
            if count == wanted:
                os.kill(process.pid, signal.SIGKILL)
            if not line.endswith("\n"):
                continue
            key = line[1:-1]
            if line[0] == "+":
                may.add(key)
            elif line[0] == "=":
                must.add(key)
                may.discard(key)
            elif line[0] == "?":
                must.discard(key)
                may.add(key)
            else:
                may.discard(key)
        process.stdout.close()
        assert process.wait(timeout=60) == -signal.SIGKILL
        clock = Clock()
        journal, pool = Journal.open(directory, SETTINGS, clock)
        pool.remount(CLIENT, [segment("a", 8 << 20)])
        there = set(pool.keys())
        journal.close()
        assert must <= there, "lost"
        assert there <= must | may, "shown, and never put"
        must = there


def test_the_pool_is_made_for_a_journal_whatever_it_was_told(directory: Path) -> None:
    journal, pool = Journal.open(directory, PoolSettings(log=False), Clock())
    assert isinstance(pool, Pool)
    pool.remount(CLIENT, [segment("a")])
    assert pool.take_log()
    journal.close()


def test_a_long_state_is_read_in_steps_and_can_be_given_up(directory: Path) -> None:
    kept = Kept(directory)
    kept.mount()
    keys = [f"k{number}" for number in range(3000)]
    kept.put(*keys)
    kept.journal.close()
    for wanted in (1, 4, 8, 12):
        steps = Journal.opening(directory, Pool(PoolSettings(log=True), Clock()))
        for _ in range(wanted):
            next(steps)
        steps.close()
    assert keys_of(directory) == set(keys)
