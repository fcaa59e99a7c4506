"""The log of a background agent is begun anew, and no line of it is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from p2pstore.agent.home import old_log as old
from p2pstore.agent.log_file import KEPT

ROOT = Path(__file__).resolve().parents[3]

WRITER = """
import os, sys, threading
from pathlib import Path
from p2pstore.agent.log_file import LogFile
log = LogFile(Path(sys.argv[1]), int(sys.argv[2]))
{body}
"""


def run(path: Path, most: int, body: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Python that logs to ``path``, as an agent does that was started in the background."""
    with path.open("ab") as log:
        given = {"stdout": log, "stderr": log, **options}
        command = [sys.executable, "-c", WRITER.format(body=body), str(path), str(most)]
        return subprocess.run(command, cwd=ROOT, timeout=60, check=True, **given)


def test_it_is_begun_anew_when_it_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    path.write_text("x" * 101)
    run(
        path,
        100,
        "print('before', flush=True); assert log.look(); print('after', file=sys.stderr); assert not log.look()",
    )
    assert path.read_text() == "after\n"
    assert old(path, 1).read_text() == "x" * 101 + "before\n"
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("most", [0, 101])
def test_it_goes_on_while_it_is_small_or_may_grow(tmp_path: Path, most: int) -> None:
    path = tmp_path / "agent.log"
    path.write_text("x" * 101)
    run(path, most, "assert not log.look()")
    assert [each.name for each in tmp_path.iterdir()] == ["agent.log"]


def test_a_few_old_ones_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    run(path, 1, f"for number in range({KEPT + 3}):\n    print(number, flush=True)\n    assert log.look()")
    assert [old(path, number).read_text() for number in range(1, KEPT + 1)] == [
        f"{KEPT + 2 - number}\n" for number in range(KEPT)
    ]
    assert len(list(tmp_path.iterdir())) == KEPT + 1


def test_many_threads_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    body = """
def write(which):
    for number in range(500):
        os.write(2, f"{which} {number}\\n".encode())
threads = [threading.Thread(target=write, args=(which,)) for which in range(4)]
[thread.start() for thread in threads]
looked = 0
while any(thread.is_alive() for thread in threads) and looked < 2:
    looked += log.look()
[thread.join() for thread in threads]
"""
    run(path, 2000, body)
    lines = [line for each in tmp_path.iterdir() for line in each.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{which} {number}" for which in range(4) for number in range(500))


def test_what_is_no_log_of_ours_is_left_alone(tmp_path: Path) -> None:
    """In the foreground standard error is a terminal's, or the journal's; or somebody has rotated the log already."""
    path = tmp_path / "agent.log"
    path.write_text("x" * 101)
    run(path, 1, "assert not log.look()", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run(path, 1, "os.rename(sys.argv[1], sys.argv[1] + '.mine'); assert not log.look(); print('more')")
    assert (tmp_path / "agent.log.mine").read_text() == "x" * 101 + "more\n"


def test_where_no_new_one_can_be_made_the_old_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    path.write_text("x" * 101)
    body = """
from engine.files.system import system
real = system.open
def refuses(*a, **k):
    raise OSError(28, "No space left on device")
type(system).open = staticmethod(refuses)
try:
    log.look()
except OSError:
    print("it was told", flush=True)
type(system).open = staticmethod(real)
assert log.look()
print("anew")
"""
    run(path, 100, body)
    assert old(path, 1).read_text() == "x" * 101 + "it was told\n"
    assert path.read_text() == "anew\n"
