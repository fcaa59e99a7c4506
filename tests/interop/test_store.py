"""A real Mooncake Store, master and clients, on our metadata server: it puts and gets values."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import HttpMetadata
from tests.interop.store_client import digest, value_of
from tests.interop.store_master import real_master
from tests.interop.wheels import OLD, Wheel, wheel
from tests.ports import reserved_port

CLIENT = Path(__file__).with_name("store_client.py")
ANSWER_SECONDS = 100
"""For a client to answer, below what a test may take."""


@pytest.fixture(scope="module", params=["newest", OLD])
def installed(request: pytest.FixtureRequest) -> Wheel:
    return wheel(request.param)


@pytest.fixture(scope="module")
def master(installed: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real master."""
    with real_master(installed, tmp_path_factory.mktemp("master")) as address:
        yield address


class Client:
    """A process with the store's client."""

    def __init__(self, installed: Wheel, metadata: str, master: str, *, offers: bool, **environment: str) -> None:
        self.name = f"127.0.0.1:{reserved_port()}"
        self._process = installed.run(
            CLIENT,
            STORE_NAME=self.name,
            STORE_METADATA=metadata,
            STORE_MASTER=master,
            STORE_OFFERS=str(int(offers)),
            **environment,
        )
        assert self.answer() == {"code": 0}

    def __call__(self, do: str, **arguments: object) -> dict[str, Any]:
        self.ask(do, **arguments)
        return self.answer()

    def ask(self, do: str, **arguments: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next answer; a client that gives none is killed, and fails the test."""
        assert self._process.stdout is not None
        bound = threading.Timer(ANSWER_SECONDS, self._process.kill)
        bound.start()
        try:
            for line in self._process.stdout:
                if line.startswith("answer "):
                    return dict(json.loads(line.removeprefix("answer ")))
        finally:
            bound.cancel()
        return pytest.fail(f"the store's client ended with status {self._process.wait(10)}")

    def close(self) -> None:
        """Have it end. How upstream's code gets through that is not ours: once one of 0.3.11 with a disk crashed there."""
        try:
            self.ask("end")
            self._process.communicate(timeout=60)
        finally:
            self._process.kill()
            self._process.communicate()


def test_values_travel_between_clients(installed: Wheel, master: str, http_metadata: HttpMetadata) -> None:
    records = http_metadata.records
    holder = Client(installed, http_metadata.url, master, offers=True)
    reader = Client(installed, http_metadata.url, master, offers=False)
    try:
        described = json.loads(records.get(f"mooncake/ram/{holder.name}") or b"{}")
        assert described["protocol"] == "tcp"
        assert described["buffers"]
        assert json.loads(records.get(f"mooncake/rpc_meta/{holder.name}") or b"{}")["rpc_port"]
        for client, key, length in [(holder, "a", 1), (holder, "b", 3_000_000), (reader, "c", 1_234_567)]:
            assert client("put", key=key, length=length) == {"code": 0}
        for key, length in [("a", 1), ("b", 3_000_000), ("c", 1_234_567)]:
            expected = digest(value_of(key, length))
            for client in (holder, reader):
                assert client("get", key=key) == {"sha256": expected}
    finally:
        reader.close()
        holder.close()
    assert records.get(f"mooncake/rpc_meta/{holder.name}") is None
