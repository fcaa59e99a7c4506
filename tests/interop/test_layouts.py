"""Tensors along several axes, put by the real class and by ours: the same keys, the same bytes, and the same is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.interop.store_master import our_master
from tests.interop.wheels import wheel

PEER = Path(__file__).with_name("layouts_peer.py")
SECONDS = 120


def told(module: str, python: Path | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """What was put and read, and the digest of each value in the pool; as tensors, too, with a ``python`` that has them."""
    package = wheel("newest").package.parent
    paths = [Path(__file__).resolve().parents[2], package] if python else sys.path
    variables = {
        **wheel("newest").environment,
        "STORE_MODULE": module,
        "STORE_WITH": "tensors" if python else "addresses",
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }
    with our_master() as master:
        process = subprocess.Popen(
            [str(python or sys.executable), str(PEER)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, **variables, "STORE_MASTER": master.address},
        )  # fmt: skip
        bound = threading.Timer(SECONDS, process.kill)
        bound.start()
        try:
            did = _answer(process)
            keys = sorted(master.pool.names("default"))
            return did, dict(_answer(process, ["", json.dumps(keys)]))
        finally:
            process.communicate("\n", timeout=60)
            bound.cancel()


def _answer(process: subprocess.Popen[str], lines: Sequence[str] = ()) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("".join(f"{line}\n" for line in lines))
    process.stdin.flush()
    line = next((line for line in process.stdout if line.startswith("answer ")), None)
    assert line is not None, f"it ended with status {process.wait(10)}"
    return dict(json.loads(line.removeprefix("answer ")))


def test_what_is_put_by_address_is_the_same() -> None:
    (theirs, put), (ours, own) = (told(module) for module in ("mooncake.store", "p2pstore.kv.client.compat"))
    assert ours == theirs
    assert own == put
    assert len(put) == 10
