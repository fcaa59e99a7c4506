"""What a worker counts and checks, over a store that is a dictionary."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import pytest

from engine.errors import BenchFailed, BytesDiffer
from p2pstore.bench.store import Case, Operation
from p2pstore.bench.store import worker as module
from p2pstore.bench.store.worker import Worker


class Fake:
    """Upstream's class, as far as the bench calls it."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.put_code = 0
        self.spoil = False
        self.most = 0

    def register_buffer(self, address: int, size: int) -> int:
        return 0

    def put_from(self, key: str, address: int, size: int) -> int:
        return self.batch_put_from([key], [address], [size])[0]

    def batch_put_from(self, keys: Sequence[str], addresses: Sequence[int], sizes: Sequence[int]) -> list[int]:
        for key, address, size in zip(keys, addresses, sizes, strict=True):
            assert key not in self.values, "a put of a key that is there measures nothing"
            self.values[key] = ctypes.string_at(address, size)
        self.most = max(self.most, len(self.values))
        return [self.put_code] * len(keys)

    def get_into(self, key: str, address: int, size: int) -> int:
        return self.batch_get_into([key], [address], [size])[0]

    def batch_get_into(self, keys: Sequence[str], addresses: Sequence[int], sizes: Sequence[int]) -> list[int]:
        for key, address in zip(keys, addresses, strict=True):
            value = self.values[key]
            ctypes.memmove(address, bytes(len(value)) if self.spoil else value, len(value))
        return [len(self.values[key]) for key in keys]

    def is_exist(self, key: str) -> int:
        return int(key in self.values)

    def batch_is_exist(self, keys: Sequence[str]) -> list[int]:
        return [self.is_exist(key) for key in keys]

    def batch_remove(self, keys: Sequence[str], force: bool) -> list[int]:
        return [0 if self.values.pop(key, None) is not None else -704 for key in keys]

    def close(self) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setattr(module, "client", lambda *_: made)
    return made


def worker(**more: Any) -> Worker:
    return Worker("ours", "nowhere", **{"length": 1 << 20, "segment": 0, "room": 64 << 10, **more})


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("batch", [1, 4])
def test_each_operation(fake: Fake, operation: Operation, batch: int) -> None:
    found = worker().measure(Case(operation, 4096, batch, 2), 0.01)
    assert found.batches > 0
    assert found.seconds > 0
    assert found.bytes == (0 if operation is Operation.EXIST else found.batches * batch * 4096)
    assert len(found.latencies) == found.batches
    assert fake.values == {}, "what it put is removed"
    assert fake.most * 4096 <= 64 << 10


def test_values_are_compared(fake: Fake) -> None:
    one = worker()
    one.verify(Case(Operation.GET, 5000, 3, 1), 7)
    assert fake.values == {}
    fake.spoil = True
    with pytest.raises(BytesDiffer):
        one.verify(Case(Operation.GET, 5000, 3, 1), 8)


def test_a_call_that_fails_ends_the_measurement(fake: Fake) -> None:
    fake.put_code = -200
    with pytest.raises(BenchFailed, match="put returned -200"):
        worker().measure(Case(Operation.PUT, 4096, 1, 2), 0.01)
