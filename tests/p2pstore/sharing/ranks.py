"""Ranks of this host as processes, and what they have come to."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
WAIT = 120.0

STOPS = [
    "before the meeting",
    "before all is handed out",
    "after the meeting",
    "before a chunk is offered",
    "after a chunk was offered",
    "before a chunk is copied",
    "after a chunk was copied",
    "at the end",
    "after the end",
]
"""Where a rank can be made to stand still."""


class Rank:
    """A process that loads when it is told to; see ``rank.py``."""

    def __init__(self, root: Path, rank: int, size: int, options: dict[str, Any], **more: Any) -> None:
        (root / "gpus").mkdir(exist_ok=True)
        told = {"shared": str(root / "gpus"), "devices": size, "options": options, "name": f"rank-{rank}", **more}
        self.stop: str = more.get("stop", "")
        self.log = (root / f"rank-{rank}.log").open("a+")
        variables = {
            "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
            "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(root),
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.p2pstore.sharing.rank", json.dumps(told)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env={**os.environ, **variables}, cwd=ROOT,
            bufsize=0,
        )  # fmt: skip

    def begin(self) -> None:
        """Tell it to load."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")

    def heard(self) -> dict[str, Any]:
        """Its next line."""
        assert self.process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            assert select.select([self.process.stdout], [], [], WAIT)[0], f"it says nothing; {self.said}"
            more = self.process.stdout.read(1 << 16)
            assert more, f"it has ended: {self.said}"
            line += more
        found: dict[str, Any] = json.loads(line)
        return found

    @property
    def said(self) -> str:
        """What it has logged."""
        self.log.flush()
        return Path(self.log.name).read_text()

    def kill(self) -> None:
        """As the system would."""
        self.process.kill()
        self.process.wait(WAIT)

    def finish(self) -> dict[str, Any]:
        """Let it end, and hear what is left in it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        found = self.heard()
        assert self.process.wait(WAIT) == 0, self.said
        return found


@contextlib.contextmanager
def ranks(root: Path, size: int, options: dict[str, Any], **more: Any) -> Iterator[list[Rank]]:
    """All of a host, ready. ``stop`` and ``refuse`` in ``more`` are by rank."""
    stop, refuse = more.pop("stop", {}), more.pop("refuse", {})
    made: list[Rank] = []
    try:
        made += [
            Rank(root, rank, size, options, stop=stop.get(rank, ""), refuse=refuse.get(rank, ""), **more)
            for rank in range(size)
        ]
        for each in made:
            assert each.heard() == {"ready": True}
        yield made
    finally:
        for each in made:
            each.process.kill()
            each.process.wait(WAIT)
            each.log.close()
            for pipe in (each.process.stdin, each.process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):
                    pipe.close()
