"""``mooncake doctor``."""

from __future__ import annotations

import json

from mooncake_cli.commands.doctor import lines
from p2pstore.doctor import Check, State
from tests.cli.conftest import Mooncake


def test_lines_have_marks_and_advice() -> None:
    checks = [
        Check("a", State.OK, "fine"),
        Check("longer", State.BAD, "broken\n", "mend it"),
        Check("b", State.INFO, "x"),
    ]
    assert lines(checks) == [
        "ok  a       fine",
        "BAD longer  broken\\n",
        "            mend it",
        "-   b       x",
    ]


def test_a_machine_that_is_well(mooncake: Mooncake) -> None:
    done = mooncake("doctor", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["ok"]
    assert {"name": "loopback tcp", "state": "ok", "detail": "1 MiB came", "advice": ""} in document["checks"]


def test_what_is_bad_is_told_with_status_10(mooncake: Mooncake) -> None:
    done = mooncake("-q", "doctor", "--peer", "127.0.0.1:1")
    assert done.returncode == 10
    assert done.stdout == "to 127.0.0.1:1\n"
    assert "1 of " in done.stderr
