"""Values on disk: whole or not there, whatever happened, and never more bytes than were allowed."""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2pstore.errors import UsageError
from p2pstore.kv.errors import TierTaken, TierUnusable
from p2pstore.kv.tiers import log as module
from p2pstore.kv.tiers.log import MIN_LIMIT, VALUES, Log
from p2pstore.kv.tiers.records import BLOCK
from tests.refusing import RefusingFileSystem

LIMIT = MIN_LIMIT


def opened(directory: Path, limit: int = LIMIT, *, direct: bool = True) -> Log:
    log = Log(directory, limit, direct=direct)
    log.load()
    return log


def value(seed: object, size: int) -> bytes:
    return random.Random(str(seed)).randbytes(size)


def put(log: Log, key: str, data: bytes) -> list[str]:
    written = log.write(key, memoryview(data))
    assert not written.why
    return written.left


def get(log: Log, key: str) -> bytes | None:
    size = log.size(key)
    if size is None:
        return None
    data = bytearray(size)
    return bytes(data) if log.read_into(key, memoryview(data)) else None


def all_of(log: Log) -> dict[str, bytes | None]:
    return {key: get(log, key) for key in log.sizes()}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    it = opened(tmp_path / "tier")
    yield it
    it.close()


@pytest.fixture
def fs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RefusingFileSystem:
    return RefusingFileSystem(tmp_path / "tier", monkeypatch)


# -- a dict, with crashes at any byte


class Crash(BaseException):
    """The process is gone: nothing that it would have done then is done."""


class CrashingLog(RuleBasedStateMachine):
    """Beside a dict. What an interrupted write was to displace may be there or not; all else is as it was."""

    DIRECT: ClassVar[bool] = True
    ROOT: ClassVar[str | None] = None
    """Where directories are made."""

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "CHUNK", 16 * BLOCK)  # so that a value takes several
        self.directory = Path(tempfile.mkdtemp(dir=self.ROOT)) / "tier"
        self.fs = RefusingFileSystem(self.directory, self.patch)
        self.limit = LIMIT
        self.log = opened(self.directory, direct=self.DIRECT)
        self.values: dict[str, bytes] = {}
        self.count = 0

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.close()
            self.patch.undo()

    keys = st.sampled_from(["a", "b", "default/c", "é" * 40])
    sizes = st.one_of(
        st.integers(1, 3 * BLOCK), st.sampled_from([16 * BLOCK - 49, 16 * BLOCK, 90_000, 180_000, LIMIT - 2 * BLOCK])
    )

    @rule(key=keys, size=sizes)
    def put_one(self, key: str, size: int) -> None:
        self.put(key, size)

    def put(self, key: str, size: int) -> None:
        data = self._new(size)
        for each in put(self.log, key, data):
            del self.values[each]
        self.values[key] = data

    @rule(
        several=st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(1, 25 * BLOCK)), min_size=4, max_size=12)
    )
    def put_round(self, several: list[tuple[str, int]]) -> None:
        for key, size in several:
            self.put(key, size)

    @rule(key=keys, size=sizes, part=st.floats(0, 1))
    def die_while_it_is_written(self, key: str, size: int, part: float) -> None:
        data = self._new(size)
        displaced = copy.deepcopy(self.log._ring).plan(key, size).left
        left = [int(part * (size + BLOCK))]

        def pwrite(real: Callable[..., int], fd: int, piece: memoryview, at: int) -> int:
            count = min(left[0], len(piece))
            left[0] -= count
            if count:
                os.pwrite(self.plain, piece[:count], at)
            if count < len(piece):
                raise Crash
            return count

        self.plain = os.open(self.directory / VALUES, os.O_RDWR)  # any byte, not whole blocks alone
        self.fs.answers("pwrite", pwrite)
        with contextlib.suppress(Crash):
            self.log.write(key, memoryview(data))
        self.fs.behaves()
        os.close(self.plain)
        self._again()
        found = all_of(self.log)
        for name, before in self.values.items():
            if name == key:
                assert found.get(name) in {None, before, data}
                assert found.get(name) is not None or name in displaced
            elif name in displaced:
                assert found.get(name) in {None, before}
            else:
                assert found[name] == before
        if key not in self.values:
            assert found.get(key) in {None, data}
        assert found.keys() <= self.values.keys() | {key}
        self.values = {name: got for name, got in found.items() if got is not None}

    @rule()
    def open_again(self) -> None:
        self._again()

    @rule(limit=st.sampled_from([LIMIT, LIMIT + 64 * BLOCK]))
    def open_with_another_limit(self, limit: int) -> None:
        self.limit = limit
        self._again()
        for name in self.values.keys() - self.log.sizes().keys():
            assert limit == LIMIT  # it lay behind that
            del self.values[name]

    @precondition(lambda self: self.count % 7 == 3)
    @rule()
    def clear(self) -> None:
        self.log.clear()
        self.values.clear()
        self.count += 1

    @invariant()
    def it_is_the_dict(self) -> None:
        if not hasattr(self, "log"):
            return
        assert all_of(self.log) == self.values
        assert (self.directory / VALUES).stat().st_size <= self.limit
        assert self.log.stored == sum(map(len, self.values.values()))

    def _new(self, size: int) -> bytes:
        self.count += 1
        return value(self.count, size)

    def _again(self) -> None:
        self.log.close()
        self.log = opened(self.directory, self.limit, direct=self.DIRECT)


@pytest.mark.parametrize("direct", [True, False])
def test_it_is_a_dict_that_outlives_crashes_at_any_byte(tmp_path: Path, *, direct: bool) -> None:
    class Machine(CrashingLog):
        DIRECT = direct
        ROOT = str(tmp_path)

    case = Machine.TestCase
    case.settings = settings(
        max_examples=20, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case().runTest()


@contextlib.contextmanager
def played(root: Path) -> Iterator[CrashingLog]:
    """The same steps, in an order that a test chooses."""

    class Machine(CrashingLog):
        ROOT = str(root)

    machine = Machine()
    machine.begin()
    try:
        yield machine
        machine.it_is_the_dict()
    finally:
        machine.teardown()


def test_a_torn_record_stays_gone_when_newer_ones_are_written_elsewhere(tmp_path: Path) -> None:
    with played(tmp_path) as machine:
        machine.put("a", 1)
        machine.put("a", 180_000)
        machine.put("a", 1)
        machine.put("a", 1)
        machine.die_while_it_is_written("a", 65_487, 0.5)
        assert machine.values.keys() == {"a"}
        machine.put("b", 65_536)  # it does not fit behind the torn one: that is not the newest any more
        machine.open_again()
        machine.it_is_the_dict()


def test_what_a_torn_record_displaced_does_not_come_back(tmp_path: Path) -> None:
    with played(tmp_path) as machine:
        for key in "abcdefg":
            machine.put(key, 7 * BLOCK)
        machine.die_while_it_is_written("z", 20 * BLOCK, 0.3)
        left = dict(machine.values)
        machine.open_again()
        machine.it_is_the_dict()
        machine.die_while_it_is_written("z", 1, 0.005)  # not even its header is there
        assert machine.values == left
        machine.open_again()
        machine.it_is_the_dict()


def test_a_torn_record_on_a_bad_block_costs_nothing_else(tmp_path: Path) -> None:
    with played(tmp_path) as machine:
        machine.put("a", 1)
        machine.die_while_it_is_written("b", 40 * BLOCK, 0.3)
        bad = 2 * BLOCK  # all behind the torn record's header

        def preadv(real: Callable[..., int], fd: int, buffers: list[memoryview], at: int) -> int:
            if at + sum(map(len, buffers)) > bad + BLOCK:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd, buffers, at)

        machine.put("c", 40 * BLOCK)  # it is behind that header, too
        machine.log.close()
        with (machine.directory / VALUES).open("r+b") as file:
            file.seek(3 * BLOCK)
            file.write(b"torn")
        machine.fs.answers("preadv", preadv)
        machine.open_again()
        assert all_of(machine.log).keys() == {"a"}
        machine.fs.behaves()
        del machine.values["c"]


def test_what_a_smaller_limit_cut_in_two_does_not_come_back_with_a_larger_one(tmp_path: Path) -> None:
    with played(tmp_path) as machine:
        machine.open_with_another_limit(LIMIT + 64 * BLOCK)
        machine.put("a", 55 * BLOCK)
        machine.put("b", 20 * BLOCK)  # across the end of the smaller limit
        machine.put("c", 49 * BLOCK)
        machine.put("d", 1)  # at the beginning, where "a" was
        machine.open_with_another_limit(LIMIT)
        assert machine.values.keys() == {"d"}
        machine.open_with_another_limit(LIMIT + 64 * BLOCK)
        machine.it_is_the_dict()


# -- a process that is killed

WRITER = """
import sys, random
from pathlib import Path
from p2pstore.kv.tiers.log import Log
log = Log(Path(sys.argv[1]), int(sys.argv[2])); log.load()
for number in range(int(sys.argv[3]), 1 << 30):
    data = random.Random(str(number)).randbytes(1 + number * 7919 % 200_000)
    assert not log.write(f"k{number}", memoryview(data)).why
    print(number, flush=True)
"""


@pytest.mark.parametrize("limit", [1 << 20, 256 << 20])
def test_kill_9_leaves_whole_values_and_all_that_were_written(tmp_path: Path, limit: int) -> None:
    directory, number = tmp_path / "tier", -1
    for kill_after in (1, 9, 40, 3, 25):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory), str(limit), str(number + 1)],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            for _ in range(kill_after):
                number = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            said = writer.stdout.read().split("\n")
        number = max([number, *(int(each) for each in said[:-1] if each)])
        log = opened(directory, limit)
        found = all_of(log)
        log.close()
        for key, got in found.items():
            seed = int(key[1:])
            assert got == random.Random(str(seed)).randbytes(1 + seed * 7919 % 200_000)
        assert f"k{number}" in found
        if limit > 1 << 20:
            assert {f"k{each}" for each in range(number + 1)} <= found.keys()
        number = max(number, *(int(key[1:]) for key in found))


# -- what is wrong


def test_a_value_that_rotted_is_not_given_out(log: Log) -> None:
    put(log, "a", value("a", 50_000))
    put(log, "b", value("b", 50_000))
    with (log.directory / VALUES).open("r+b") as file:
        file.seek(BLOCK + 30_000)
        file.write(b"rot")
    assert get(log, "a") is None
    assert (log.damaged, list(log.sizes())) == (1, ["b"])
    assert get(log, "b") == value("b", 50_000)


def test_a_file_that_was_cut_short_gives_what_is_left(log: Log) -> None:
    put(log, "a", value("a", 50_000))
    put(log, "b", value("b", 50_000))
    os.truncate(log.directory / VALUES, 15 * BLOCK)
    assert get(log, "b") is None
    assert get(log, "a") == value("a", 50_000)


def test_a_log_that_is_put_as_a_value_is_not_taken_for_records(log: Log) -> None:
    put(log, "a", value("a", 5_000))
    own = (log.directory / VALUES).read_bytes()
    shifted = own[BLOCK - 49 :]  # its records stand at blocks again
    put(log, "b", shifted)
    put(log, "b", b"short")
    log.close()
    again = opened(log.directory)
    assert all_of(again) == {"a": value("a", 5_000), "b": b"short"}
    again.close()


def test_a_directory_is_one_process_s(log: Log) -> None:
    with pytest.raises(TierTaken, match="another process keeps values on disk in"):
        Log(log.directory, LIMIT)
    log.close()
    log.close()
    Log(log.directory, LIMIT).close()


def test_a_limit_that_is_a_slip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give at least"):
        Log(tmp_path / "tier", 512)
    assert not (tmp_path / "tier").exists()


def test_somebody_else_s_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / VALUES
    path.write_text("mine\n" * 1000)
    with pytest.raises(TierUnusable, match="not a log of values"):
        Log(tmp_path, LIMIT)
    assert path.read_text() == "mine\n" * 1000


def test_a_path_that_is_a_file_is_refused_in_plain_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TierUnusable, match=r"values cannot be kept on disk in .*file: file exists"):
        Log(tmp_path / "file", LIMIT)


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EROFS, "read-only file system"), (errno.EACCES, "permission denied")]
)
def test_a_directory_that_may_not_be_written_is_refused(
    tmp_path: Path, fs: RefusingFileSystem, number: int, words: str
) -> None:
    (tmp_path / "tier").mkdir()
    fs.refuses("open", number)
    with pytest.raises(TierUnusable, match=words):
        Log(tmp_path / "tier", LIMIT)
    fs.behaves()
    Log(tmp_path / "tier", LIMIT).close()  # nothing held on to it


@pytest.mark.parametrize("call", ["open", "preadv"])
def test_without_direct_io_the_kernel_s_cache_is_used(tmp_path: Path, fs: RefusingFileSystem, call: str) -> None:
    fs.answers(call, refusing_direct(call))
    log = opened(tmp_path / "tier")
    assert not log.direct
    put(log, "a", value("a", 70_000))
    assert get(log, "a") == value("a", 70_000)
    log.close()


def refusing_direct(call: str) -> Callable[..., Any]:
    refused: list[int] = []

    def answer(real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        flags = args[1] if call == "open" else os.O_DIRECT * (not refused)
        if flags & os.O_DIRECT:
            refused.append(1)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(*args, **kwargs)

    return answer


# -- a disk that is full, or fails


def full_beyond(size: int) -> Callable[..., int]:
    """A disk that has room for a file of ``size`` bytes."""

    def pwrite(real: Callable[..., int], fd: int, data: memoryview, at: int) -> int:
        room = max(size - at, 0) // BLOCK * BLOCK
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[:room], at)

    return pwrite


def test_a_full_disk_makes_the_log_smaller_and_it_goes_on(
    tmp_path: Path, fs: RefusingFileSystem, caplog: pytest.LogCaptureFixture
) -> None:
    log = opened(tmp_path / "tier")
    fs.answers("pwrite", full_beyond(40 * BLOCK))
    left: list[str] = []
    for number in range(7):
        left += put(log, f"k{number}", value(number, 15 * BLOCK))
    assert left == ["k0", "k1", "k2", "k3", "k4"]
    assert log.capacity == 33 * BLOCK
    assert caplog.text.count("is full") == 1
    want = {f"k{number}": value(number, 15 * BLOCK) for number in (5, 6)}
    assert all_of(log) == want
    log.close()
    again = opened(tmp_path / "tier")
    assert all_of(again) == want
    again.close()


def test_a_disk_without_any_room_refuses_and_takes_it_later(tmp_path: Path, fs: RefusingFileSystem) -> None:
    log = opened(tmp_path / "tier")
    fs.refuses("pwrite", errno.ENOSPC)
    assert log.write("a", memoryview(b"x")).why == "no space left on device"
    assert get(log, "a") is None
    fs.behaves()
    put(log, "a", b"x")
    assert get(log, "a") == b"x"
    log.close()


def test_a_disk_that_fails_says_so_and_keeps_what_it_has(tmp_path: Path, fs: RefusingFileSystem) -> None:
    log = opened(tmp_path / "tier")
    put(log, "a", value("a", 9_000))
    fs.refuses("pwrite", errno.EIO)
    assert log.write("b", memoryview(b"x")).why == "input/output error"
    fs.behaves()
    assert all_of(log) == {"a": value("a", 9_000)}
    fs.refuses("preadv", errno.EIO)
    assert get(log, "a") is None
    fs.behaves()
    log.close()


def test_a_value_that_changes_while_it_is_written_is_not_kept(tmp_path: Path, fs: RefusingFileSystem) -> None:
    log = opened(tmp_path / "tier", 16 << 20)
    data = bytearray(value("a", 6 << 20))

    def pwrite(real: Callable[..., int], fd: int, piece: memoryview, at: int) -> int:
        data[-1] ^= 1
        return real(fd, piece, at)

    fs.answers("pwrite", pwrite)
    assert "changed" in log.write("a", memoryview(data)).why
    fs.behaves()
    log.close()
    again = opened(tmp_path / "tier", 16 << 20)
    assert all_of(again) == {}
    again.close()


def test_what_can_never_fit_is_refused_and_nothing_goes_for_it(log: Log) -> None:
    put(log, "a", b"x")
    assert log.write("b", memoryview(bytes(LIMIT))).why == f"{LIMIT} bytes under a key of 1 characters do not fit"
    assert "do not fit" in log.write("k" * 5000, memoryview(b"x")).why
    assert all_of(log) == {"a": b"x"}


def test_what_is_there_already_is_known(log: Log) -> None:
    put(log, "a", b"one")
    assert log.holds("a", memoryview(b"one"))
    assert not log.holds("a", memoryview(b"two"))
    assert not log.holds("b", memoryview(b"one"))


def test_memory_of_another_size_is_not_filled(log: Log) -> None:
    put(log, "a", b"one")
    assert not log.read_into("a", memoryview(bytearray(2)))
    assert not log.read_into("b", memoryview(bytearray(3)))


def test_loading_can_be_broken_off(tmp_path: Path, log: Log) -> None:
    put(log, "a", b"one")
    log.close()
    again = Log(tmp_path / "tier", LIMIT)
    again.load(lambda: True)
    assert len(again) == 0
    again.close()
