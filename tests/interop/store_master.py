"""Masters of the pooled store for tests: the real one as a process, and ours in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from p2pstore.kv.master.server import Master, MasterSettings
from p2pstore.kv.pool.pool import Pool
from p2pstore.kv.pool.settings import PoolSettings
from tests.interop.wheels import Wheel
from tests.ports import reserved_port

START_SECONDS = 100


@contextlib.contextmanager
def real_master(installed: Wheel, directory: Path) -> Iterator[str]:
    """The address of a real master."""
    port, metrics = reserved_port(), reserved_port()
    binary = installed.package / "mooncake_master"
    binary.chmod(0o755)
    options = [f"--rpc_port={port}", f"--metrics_port={metrics}", "--rpc_address=127.0.0.1", "--logtostderr=1"]
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(binary), *options], stdout=output, stderr=output, env={**os.environ, **installed.environment}
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None, log.read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def our_master(**settings: Any) -> Iterator[Master]:
    """A master of ours, on an event loop in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    master = Master(MasterSettings(port=0), Pool(PoolSettings(**settings), time.monotonic))
    try:
        asyncio.run_coroutine_threadsafe(master.start(), loop).result(60)
        yield master
    finally:
        asyncio.run_coroutine_threadsafe(master.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
