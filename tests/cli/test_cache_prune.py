from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from p2pstore.errors import LastCopy, to_wire
from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import DIGEST, FakeAgent
from tests.cli.test_cache import MIB, copy_answer

WAIT = 150.0
LAST = to_wire(LastCopy(name="b", path="/data/b", detail=""))
GONE = [copy_answer("a", used=time.time() - 90)]
KEPT = [{**copy_answer("b"), "error": LAST}]


def answer(*, dry_run: bool, **changes: Any) -> dict[str, Any]:
    return {"event": "result", "deleted": GONE, "kept": [], "bytes": 3 * MIB, "dry_run": dry_run, **changes}


@pytest.fixture
def plan(agent: FakeAgent) -> FakeAgent:
    """Would delete one copy, and keep another; and does so."""
    agent.answers["POST /v1/cache-prune"] = [answer(dry_run=True, kept=KEPT)]
    return agent


def bodies(agent: FakeAgent) -> list[dict[str, Any]]:
    return [body for method, path, body in agent.requests if (method, path) == ("POST", "/v1/cache-prune")]


def test_a_dry_run_shows_what_would_go_and_what_stays(plan: FakeAgent, mooncake: Mooncake) -> None:
    done = mooncake("cache", "prune", "--dry-run", "--older-than", "30d", "--larger-than", "1GB", "--keep", "m/*")
    assert done.returncode == 0
    _, gone, kept = done.stdout.splitlines()
    assert (gone.split()[:3], gone.split()[-1]) == (["a", "3.0", "MiB"], "/data/a")
    assert " min " in gone
    assert "no other node that answers has all of 'b'" in kept
    assert done.stderr == "1 copy, 3.0 MiB would be deleted; 1 more copy would stay\n"
    assert bodies(plan) == [
        {"older_than": 30 * 86400, "larger_than": 10**9, "keep": ["m/*"], "last_copies": False, "dry_run": True,
         "only": None}
    ]  # fmt: skip


def test_json_and_quiet(plan: FakeAgent, mooncake: Mooncake) -> None:
    shown = json.loads(mooncake("cache", "prune", "--dry-run", "--json").stdout)
    assert shown == {"deleted": GONE, "kept": KEPT, "bytes": 3 * MIB, "dry_run": True}
    assert mooncake("cache", "prune", "--dry-run", "-q").stdout == "/data/a\n"


def test_with_yes_it_deletes_what_the_plan_has_and_nothing_else(plan: FakeAgent, mooncake: Mooncake) -> None:
    done = mooncake("cache", "prune", "--yes", "--last-copies")
    assert [body["dry_run"] for body in bodies(plan)] == [True, False]
    assert bodies(plan)[1]["only"] == [["a", "/data/a", DIGEST]]
    assert all(body["last_copies"] for body in bodies(plan))
    assert "deleted a at /data/a\n" in done.stderr


def test_what_could_not_be_deleted_is_told_of(plan: FakeAgent, mooncake: Mooncake) -> None:
    plan.answers["POST /v1/cache-prune"] = [answer(dry_run=False, kept=KEPT)]
    done = mooncake("cache", "prune", "--yes")
    assert done.returncode == 10
    assert "/data/b: the files at /data/b are not deleted" in done.stderr
    assert "1 copy could not be deleted" in done.stderr


def test_nobody_can_be_asked(plan: FakeAgent, mooncake: Mooncake) -> None:
    for arguments in ((), ("--json",), ("-q",)):
        done = mooncake("cache", "prune", *arguments)
        assert done.returncode == 2
        assert "give --yes" in done.stderr
    assert all(body["dry_run"] for body in bodies(plan))


def test_nothing_to_delete_takes_nobody(plan: FakeAgent, mooncake: Mooncake) -> None:
    plan.answers["POST /v1/cache-prune"] = [answer(dry_run=True, deleted=[], bytes=0)]
    done = mooncake("cache", "prune")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing would be deleted\n")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--older-than", "soon"), "--older-than: 'soon' is no time"),
        (("--larger-than", "huge"), "--larger-than: 'huge' is not a size"),
        (("--keep", "[z-a]"), "bad pattern '[z-a]'"),
        (("--dry-run", "--yes"), "exclude each other"),
    ],
)
def test_slips(plan: FakeAgent, mooncake: Mooncake, arguments: tuple[str, ...], why: str) -> None:
    done = mooncake("cache", "prune", *arguments)
    assert done.returncode == 2
    assert why in done.stderr
    assert bodies(plan) == []


def asked(environment: dict[str, str], directory: Path, reply: bytes) -> tuple[int, str]:
    """The command's status on a terminal, and what it showed, with ``reply`` typed when it asks."""
    control, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mooncake_cli", "cache", "prune"],
        env=environment, cwd=directory, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    shown, replied = b"", False
    until = time.monotonic() + WAIT
    try:
        while time.monotonic() < until:
            if select.select([control], [], [], 5.0)[0]:
                try:
                    shown += os.read(control, 4096)
                except OSError:  # the other end is closed
                    break
            elif reply == b"\x03" and replied:
                replied = False  # it came between the question and the wait for its answer: as a person, once more
            if b"[y/N]" in shown and not replied:
                replied = True
                if reply == b"\x03":
                    process.send_signal(signal.SIGINT)
                else:
                    os.write(control, reply)
        return process.wait(WAIT), shown.decode()
    finally:
        process.kill()
        process.wait(WAIT)
        os.close(control)


@pytest.mark.parametrize(
    ("reply", "status", "deletes"), [(b"y\n", 0, True), (b"n\n", 1, False), (b"\n", 1, False), (b"\x03", 130, False)]
)
def test_on_a_terminal_it_asks(
    plan: FakeAgent, environment: dict[str, str], tmp_path: Path, reply: bytes, status: int, deletes: bool
) -> None:
    plan.answers["POST /v1/cache-prune"] = [answer(dry_run=True)]
    found, shown = asked(environment, tmp_path / "cwd", reply)
    assert "delete 1 copy, 3.0 MiB?" in shown
    assert "/data/a" in shown
    assert found == status, shown
    assert [body["dry_run"] for body in bodies(plan)] == ([True, False] if deletes else [True])
    assert "Traceback" not in shown
    if status == 1:
        assert "nothing was deleted" in shown
