"""A get works in a directory of its own: it goes on from what is provably left, and touches nobody else's."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.files.system import system
from p2pstore.errors import DestinationBusy, StorageError
from p2pstore.pull import workplace as module
from p2pstore.pull.ownership import this_process
from p2pstore.pull.workplace import STALE_SECONDS, Workplace, being_filled, tidy, work_name
from tests.p2pstore.samples import content, read_tree

M, N = "m" * 64, "n" * 64


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "dest"


def work_of(dest: Path, manifest: str = M) -> Workplace:
    return Workplace(dest.parent, dest, manifest, "name")


def left(dest: Path, manifest: str = M) -> Path:
    """What a get left that was ended."""
    work = work_of(dest, manifest)
    work.part.write_bytes(b"data")
    work.journal.add(range(1))
    work.let_go()
    return work.path


def forget_process(path: Path, boot: str = "another host's") -> None:
    """Make it look as if the get of another host had been killed: it took no note back."""
    (note,) = path.glob("ended.*")
    data = note.read_bytes().replace(this_process(M).boot.encode(), boot.encode())
    note.unlink()
    path.joinpath(note.name.replace("ended", "owner")).write_bytes(data)


@pytest.mark.parametrize("last", ["x", "x" * 255, "é" * 127, ".hidden", "...", "a b\n", os.fsdecode(b"\xff\xfe")])
def test_names(last: str) -> None:
    names = {work_name(last), work_name(last, 1), work_name(last + "y"), work_name(last + "z")}
    assert len(names) == 4
    for name in names:
        assert len(os.fsencode(name)) < 100
        assert name.startswith(".")
        assert re.fullmatch(r"\..*\.mooncake-[0-9a-f]{12}\.part", name, re.DOTALL)


def test_remove_leaves_nothing(dest: Path) -> None:
    work = work_of(dest)
    assert work.path.stat().st_mode & 0o777 == 0o700
    assert work.still_there()
    work.part.mkdir()
    (work.part / "x").touch()
    work.begin_to_fill()
    work.remove()
    assert list(dest.parent.iterdir()) == []
    assert not work.still_there()


def test_what_somebody_put_there_stays(dest: Path) -> None:
    work = work_of(dest)
    (work.path / "mine").write_bytes(b"precious")
    work.remove()
    assert read_tree(work.path) == {"mine": b"precious"}


def test_an_ended_get_is_gone_on_from(dest: Path) -> None:
    path = left(dest)
    for _ in range(3):
        work = work_of(dest)
        assert (work.path, work.journal.chunks, work.part.read_bytes()) == (path, [0], b"data")
        work.let_go()
    work_of(dest).remove()
    assert list(dest.parent.iterdir()) == []


def test_of_another_object_all_is_begun_anew(dest: Path) -> None:
    path = left(dest)
    work = work_of(dest, N)
    assert (work.path, work.journal.resumed) == (path, False)
    assert not work.part.exists()
    work.remove()


def test_a_live_get_of_this_process(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = work_of(dest)
    for manifest in (M, N):
        with pytest.raises(DestinationBusy):
            work_of(dest, manifest)
    monkeypatch.setattr(system, "flock", lambda *_: None)  # everybody gets the lock
    for manifest in (M, N):
        with pytest.raises(DestinationBusy):
            work_of(dest, manifest)
    work.remove()


CHILD = """
import sys
from pathlib import Path
from p2pstore.pull.workplace import Workplace
from engine.files.system import system
if sys.argv[2] == "without locks":
    system.flock = lambda *_: None
dest = Path(sys.argv[1])
work = Workplace(dest.parent, dest, "m" * 64, "name")
work.part.write_bytes(b"the child's")
work.journal.add(range(1))
print("at work", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["with locks", "without locks"])
def child(dest: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """Another process with a get at work on ``dest``, with its lock or without."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(dest), request.param],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        yield process
        process.kill()


def test_a_live_get_of_another_process_is_never_taken(
    dest: Path, child: subprocess.Popen[str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if request.node.callspec.params["child"] == "with locks":
        with pytest.raises(DestinationBusy):
            work_of(dest)
        return
    monkeypatch.setattr(system, "flock", lambda *_: None)
    work = work_of(dest)
    assert work.path != dest.parent / work_name("dest")
    assert not work.journal.resumed
    assert [path.read_bytes() for path in work.others] == [b"the child's"], "it may be read"
    work.remove()
    assert read_tree(dest.parent / work_name("dest"))["part"] == b"the child's"


WRITER = """
import sys, threading
from pathlib import Path
from engine.files.system import system
from p2pstore.pull.file_destination import FileDestination
from tests.p2pstore.samples import content, manifest_of
system.flock = lambda *_: None
data = content(3 << 20, int(sys.argv[2]))
manifest = manifest_of({"": data})
destination = FileDestination(Path(sys.argv[1]), manifest, "n", force=True)
for number in range(3):
    print("ready", flush=True)
    sys.stdin.readline()
    sink = destination.sink(range(number, number + 1), memoryview(bytearray(1 << 20)))
    sink.buffer(1 << 20)[:] = data[number << 20 : (number + 1) << 20]
    sink.filled(1 << 20)
    sink.close()
    destination.verified.update([number])
    destination.keep(range(number, number + 1))
print("ready", flush=True)
sys.stdin.readline()
destination.finish()
"""


@pytest.mark.parametrize("objects", [(1, 2), (1, 1)], ids=["two objects", "the same object"])
def test_two_nodes_where_everybody_gets_the_lock(dest: Path, objects: tuple[int, int]) -> None:
    """Step by step in turns, into one destination: what lies there in the end is one of them, whole."""
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, str(dest), str(number)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=Path(__file__).parents[3],
                )
            )
            for number in objects
        ]
        for node in nodes:
            stack.callback(node.kill)
        for _ in range(4):
            for node in nodes:
                assert node.stdout is not None
                assert node.stdin is not None
                assert node.stdout.readline() == "ready\n"
                node.stdin.write("go\n")
                node.stdin.flush()
        assert [node.wait(60) for node in nodes] == [0, 0]
    assert dest.read_bytes() in [content(3 << 20, number) for number in objects]
    assert [path.name for path in dest.parent.iterdir()] == ["dest"]


def test_a_killed_get_of_another_process_is_gone_on_from(dest: Path, child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait(30)
    work = work_of(dest)
    assert (work.journal.chunks, work.part.read_bytes()) == ([0], b"the child's")
    work.remove()
    assert list(dest.parent.iterdir()) == []


def test_of_another_host_it_is_read_and_left_alone(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = left(dest)
    forget_process(path)
    before = read_tree(path)
    monkeypatch.setattr(module, "LOCAL", frozenset())  # a file system that hosts share
    for manifest, others in ((M, [path / "part"]), (N, [])):
        work = work_of(dest, manifest)
        assert (work.path.name, work.others) == (work_name("dest", 1), others)
        work.remove()
    tidy(dest, M)
    assert read_tree(path) == before
    monkeypatch.undo()
    work = work_of(dest)
    assert work.path == path, "a disk of this host's own has been through a restart"
    work.remove()


def test_what_has_long_been_dead_is_removed(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = left(dest)
    forget_process(path)
    monkeypatch.setattr(module, "LOCAL", frozenset())
    journal = path / "journal"
    for age, there in ((STALE_SECONDS - 3600, True), (STALE_SECONDS + 3600, False)):
        os.utime(journal, (time.time() - age,) * 2)
        work = work_of(dest, N)
        assert path.exists() is there
        work.remove()


def test_two_that_take_the_same_at_once(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks tell nothing; the second reads the note of a dead get before the first has left its own."""
    path = left(dest)
    monkeypatch.setattr(system, "flock", lambda *_: None)
    look = module._look
    first: list[Workplace] = []

    def slowly(where: Path) -> object:
        found = look(where)
        if not first:
            monkeypatch.setattr(module, "_look", look)
            first.append(work_of(dest))
        return found

    monkeypatch.setattr(module, "_look", slowly)
    second = work_of(dest)
    assert first[0].path == path
    assert second.path != path
    for work in (*first, second):
        work.remove()
    assert list(dest.parent.iterdir()) == []


def test_a_directory_laid_out_by_another_user_is_not_used(dest: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make another user's files")
    path = left(dest)
    for file in (path, *path.iterdir()):
        os.chown(file, 65534, 65534)
    before = read_tree(path)
    work = work_of(dest)
    assert work.path != path
    work.remove()
    assert read_tree(path) == before


@pytest.mark.parametrize("name", ["journal", "owner.1", "owner.2", "note"])
def test_what_cannot_be_begun_leaves_nothing_in_the_way(dest: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A full disk: each try left a directory that no later one could use, and after eight of them all were refused."""
    if name == "owner.2":
        left(dest)
    before = read_tree(dest.parent)
    real, to_bytes = os.open, module.Owner.to_bytes

    def full(path: Path, *args: int, **kwargs: int) -> int:
        if os.path.basename(path) == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, *args, **kwargs)

    def unwritten(owner: module.Owner) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.Owner, "to_bytes", unwritten if name == "note" else to_bytes)
    monkeypatch.setattr(os, "open", full)
    monkeypatch.setattr(system, "open", full)
    for _ in range(module.MAX_WORKPLACES + 1):
        with pytest.raises(StorageError, match="no space left"):
            work_of(dest)
    monkeypatch.undo()
    assert read_tree(dest.parent) == before
    work = work_of(dest)
    assert work.path.name == work_name("dest")
    work.remove()


def test_a_note_that_cannot_be_written_leaves_what_was_there(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = left(dest)

    def unwritten(owner: module.Owner) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.Owner, "to_bytes", unwritten)
    with pytest.raises(StorageError, match="no space left"):
        work_of(dest)
    monkeypatch.undo()
    work = work_of(dest)
    assert (work.path, work.journal.chunks, work.part.read_bytes()) == (path, [0], b"data")
    work.remove()


def test_there_is_an_end_to_it(dest: Path) -> None:
    for number in range(module.MAX_WORKPLACES):
        (dest.parent / work_name("dest", number)).touch()
    with pytest.raises(StorageError, match="seem to be under way"):
        work_of(dest)


def test_tidy_and_being_filled(dest: Path) -> None:
    work = work_of(dest)
    work.begin_to_fill()
    work.let_go()
    assert being_filled(dest, M) == dest.parent
    assert not being_filled(dest, N)
    tidy(dest, N)
    assert work.path.exists()
    tidy(dest, M)
    assert not work.path.exists()
    live = work_of(dest)
    tidy(dest, M)
    assert live.still_there()
    live.remove()
