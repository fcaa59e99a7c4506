from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SIZE = 8 << 20
NAMESPACES = ["unshare", "-r", "-n", "-m"]


def why_not() -> str:
    """Why there can be no network namespaces here, or nothing."""
    if missing := [tool for tool in ("unshare", "nsenter", "ip", "mount") if shutil.which(tool) is None]:
        return f"no {', '.join(missing)} here (apt-get install util-linux iproute2)"
    command = [*NAMESPACES, "ip", "link", "add", "br0", "type", "bridge"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return f"no network namespace with a bridge can be had here: {done.stderr.strip()}" if done.returncode else ""


def test_two_connections_to_one_peer_come_in_over_two_cards() -> None:
    if reason := why_not():
        pytest.skip(reason)
    done = subprocess.run(
        [*NAMESPACES, sys.executable, str(HERE / "two_cards.py")],
        capture_output=True, text=True, timeout=110, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    received = json.loads(done.stdout)
    assert set(received) == {"a0", "a1"}
    assert all(SIZE <= count < 1.5 * SIZE for count in received.values()), received
