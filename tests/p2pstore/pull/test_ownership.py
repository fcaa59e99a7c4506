"""What is not proven dead is left alone, whatever a lock says."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from engine.processes import start_time
from p2pstore.pull.ownership import Owner, Verdict, judge, still_runs, this_process

ME = Owner("m", "boot", 1, 10, 100)
PEER = replace(ME, pid=11)
CONTAINER = replace(ME, pids=2, pid=11)
OTHER_HOST = replace(ME, boot="another")
FREE, LIVE, UNKNOWN = Verdict.FREE, Verdict.LIVE, Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("owner", "runs", "locked", "local", "verdict"),
    [
        (None, False, True, True, UNKNOWN),
        (PEER, False, True, True, FREE),
        (PEER, False, False, False, FREE),
        (PEER, True, True, True, UNKNOWN),
        (PEER, True, False, True, LIVE),
        (CONTAINER, False, True, False, FREE),
        (CONTAINER, False, False, True, UNKNOWN),
        (OTHER_HOST, False, True, True, FREE),
        (OTHER_HOST, False, True, False, UNKNOWN),
        (OTHER_HOST, False, False, True, UNKNOWN),
        (replace(OTHER_HOST, boot=""), False, True, False, UNKNOWN),
    ],
)
def test_verdicts(owner: Owner | None, runs: bool, locked: bool, local: bool, verdict: Verdict) -> None:
    def judged(*, ended: bool) -> Verdict:
        return judge(owner, ME, ended=ended, locked=locked, local=local, mine_is_live=False, runs=lambda _: runs)

    assert judged(ended=False) is verdict
    assert judged(ended=True) is FREE, "whoever takes the note back has ended"


@pytest.mark.parametrize("live", [False, True])
def test_what_this_process_does_it_knows_itself(live: bool) -> None:
    found = judge(ME, ME, ended=False, locked=True, local=True, mine_is_live=live, runs=lambda _: True)
    assert found is (LIVE if live else FREE)


def test_an_owner_is_read_back() -> None:
    me = this_process("a manifest")
    assert Owner.from_bytes(me.to_bytes()) == me
    assert (me.pid, me.started) == (os.getpid(), start_time(os.getpid()))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}\n",
        b"[]\n",
        b"\xff\n",
        b"null\n",
        ME.to_bytes()[:-1],
        ME.to_bytes().replace(b"v2", b"v9"),
        ME.to_bytes().replace(b'"pid": 10', b'"pid": "10"'),
        ME.to_bytes().replace(b'"pid"', b'"pod"'),
        b"[" * 3000 + b"\n",
    ],
    ids=range(10),
)
def test_what_is_no_note_of_ours_has_no_owner(data: bytes) -> None:
    assert Owner.from_bytes(data) is None


def test_processes() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        owner = replace(ME, pid=child.pid, started=start_time(child.pid))
        assert still_runs(owner)
        assert not still_runs(replace(owner, started=owner.started - 1)), "another had that number"
        child.kill()
        child.wait(30)
        assert not still_runs(owner)
