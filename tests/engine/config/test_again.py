"""Files are read again when they change, and what was read stays in force while they cannot be."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from engine.config import again
from engine.config.again import LOOK_SECONDS, Renewed
from engine.errors import BadConfig, UsageError
from tests.clocks import Clock


class Files:
    """Two files that are read together, and how often they were."""

    def __init__(self, directory: Path) -> None:
        self.paths = [directory / "a", directory / "b"]
        for path in self.paths:
            path.write_text(path.name)
        self.reads = 0

    def read(self) -> str:
        self.reads += 1
        return "".join(path.read_text() for path in self.paths)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def test_what_does_not_change_is_read_once(files: Files) -> None:
    clock = Clock()
    renewed = Renewed(files.paths, files.read, clock=clock)
    for _ in range(5):
        clock.now += 10
        assert await renewed.current() == "ab"
    assert files.reads == 1


async def test_a_change_is_seen_at_the_next_look(files: Files) -> None:
    clock = Clock()
    renewed = Renewed(files.paths, files.read, clock=clock)
    files.paths[1].write_text("new")
    assert await renewed.current() == "ab"
    clock.now += LOOK_SECONDS
    assert await renewed.current() == "anew"
    assert renewed.value == "anew"


async def test_a_file_that_is_put_in_place_of_another_with_its_size_and_time(files: Files, tmp_path: Path) -> None:
    clock = Clock()
    renewed = Renewed(files.paths, files.read, clock=clock)
    before = files.paths[0].stat()
    other = tmp_path / "other"
    other.write_text("z")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(files.paths[0])
    clock.now += LOOK_SECONDS
    assert await renewed.current() == "zb"


async def test_a_link_that_is_turned_to_another_file(tmp_path: Path) -> None:
    """As Kubernetes renews what it mounts."""
    clock = Clock()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    (tmp_path / "now").symlink_to("one")
    file = tmp_path / "now" / "f"
    renewed = Renewed([file], file.read_text, clock=clock)
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "now")
    clock.now += LOOK_SECONDS
    assert await renewed.current() == "two"


async def test_what_cannot_be_read_leaves_in_force_what_was(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    renewed = Renewed(files.paths, files.read, clock=clock)
    files.paths[0].unlink()
    clock.now += LOOK_SECONDS
    assert await renewed.current() == "ab"
    assert "what was read before stays in force" in caplog.text
    files.paths[0].write_text("back")
    clock.now += LOOK_SECONDS
    assert await renewed.current() == "backb"


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), UsageError(detail="cannot start a thread")])
async def test_a_thread_that_is_not_to_be_had_now_may_be_later(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def refuse(_: object) -> None:
        raise error

    clock = Clock()
    renewed = Renewed(files.paths, files.read, clock=clock)
    files.paths[1].write_text("new")
    clock.now += LOOK_SECONDS
    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "to_thread", refuse)
        assert await renewed.current() == "ab"
    assert f"{error}; what was read before stays in force" in caplog.text
    clock.now += LOOK_SECONDS
    assert await renewed.current() == "anew"


def test_what_cannot_be_read_at_first_is_raised() -> None:
    def read() -> str:
        raise BadConfig(origin="x", detail="y")

    with pytest.raises(BadConfig):
        Renewed([Path("/nonexistent")], read)


async def test_a_file_system_that_does_not_answer_holds_up_nobody(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(again, "WAIT_SECONDS", 0.05)
    answers, clock = threading.Event(), Clock()
    first = True

    def read() -> str:
        if not first:
            answers.wait(60)
        return files.read()

    renewed = Renewed(files.paths, read, clock=clock)
    first = False
    files.paths[0].write_text("new")
    clock.now += LOOK_SECONDS
    assert await renewed.current() == "ab"
    assert await renewed.current() == "ab"  # without a second thread that waits
    answers.set()
    for _ in range(600):
        if renewed.value == "newb":
            break
        await asyncio.sleep(0.05)
    assert await renewed.current() == "newb"
