from __future__ import annotations

import json

import pytest

from p2pstore.agent.etcd_words import MAX_CHARACTERS, why

LIMIT = json.dumps(
    {
        "level": "fatal",
        "ts": "2026-11-30T09:49:14.649Z",
        "caller": "embed/etcd.go:644",
        "msg": "file descriptor limit of etcd process is too low; please set higher",
        "limit": 20,
        "recommended-limit": 150,
        "stacktrace": "go.etcd.io/etcd/server/v3/embed.configureClientListeners\\n\\tembed/etcd.go:644",
    }
)
FULL = json.dumps({"level": "fatal", "msg": "failed to create WAL", "error": "no space left on device", "ts": "now"})
WARNING = json.dumps({"level": "warn", "msg": "simple token is not cryptographically signed", "caller": "x"})
GO = """fatal error: failed to reserve page summary memory

runtime stack:
runtime.throw(0x10ee9d2, 0x25)
\t/go/src/runtime/asm_amd64.s:220 +0x125
"""


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", ""),
        ("\n\n", ""),
        ("etcd: bad flag\n", "etcd: bad flag"),
        (f"{WARNING}\n", "simple token is not cryptographically signed"),
        (
            f"{WARNING}\n{LIMIT}\n",
            "file descriptor limit of etcd process is too low; please set higher (limit 20, recommended-limit 150)",
        ),
        (f"{FULL}\n{WARNING}\n", "failed to create WAL: no space left on device"),
        (GO, "fatal error: failed to reserve page summary memory"),
        (f"{WARNING}\n{GO}", "fatal error: failed to reserve page summary memory"),
        ('{"level": "fatal"}\n', '{"level": "fatal"}'),
        ('["fatal"]\n', '["fatal"]'),
    ],
)
def test_the_line_that_tells_is_found_and_said_in_words(log: str, words: str) -> None:
    assert why(log) == words


def test_a_long_line_is_cut() -> None:
    assert len(why("x" * 1000)) == MAX_CHARACTERS
