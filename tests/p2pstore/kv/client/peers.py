"""A client of the pool in a process of its own, which calls by JSON lines; run as a program it is that process.

What it puts under a key follows from the key and the length, so that whoever reads it knows what to expect.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from typing import Any

WAIT = 60.0


def value_of(key: str, length: int) -> bytes:
    return hashlib.shake_256(key.encode()).digest(length)


class Peer:
    """The process, seen from the test."""

    def __init__(self, master: str, **options: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.p2pstore.kv.client.peers", json.dumps({"master": master, **options})],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self._process.pid
        self.name = str(self._answer())

    def __call__(self, do: str, *args: object) -> Any:
        self.ask(do, *args)
        return self._answer()

    def ask(self, do: str, *args: object) -> None:
        """Make a call, and do not wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([do, *args]) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the client ended with {self._process.wait(WAIT)}"
        return json.loads(line)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(WAIT)

    def close(self) -> None:
        if self._process.poll() is None:
            self.send(signal.SIGCONT)
            try:
                self._process.communicate(timeout=WAIT)
            finally:
                self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


def main() -> None:
    from engine.errors import MooncakeError
    from p2pstore.kv.client.store import Store

    def put(key: str, length: int, how: dict[str, Any] | None = None) -> object:
        return store.put(key, value_of(key, length), **(how or {}))

    def get(key: str, length: int) -> bool:
        return store.get(key) == value_of(key, length)

    def begin(key: str, length: int) -> object:
        """A put that never ends."""
        client = store._client
        from engine.rpc.messages import ReplicateConfig

        (granted,) = client.master.put_start([key], [length], ReplicateConfig(), replace=False)
        return isinstance(granted, list)

    with Store(**json.loads(sys.argv[1])) as store:
        print(json.dumps(store.name), flush=True)
        for line in sys.stdin:
            do, *args = json.loads(line)
            try:
                answer: object = {"put": put, "get": get, "begin": begin, "pid": os.getpid}[do](*args)
            except MooncakeError as error:
                answer = f"{type(error).__name__}: {error}"
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
