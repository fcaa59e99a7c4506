"""A pool, its clock and its clients, as the tests of the pool use them."""

from __future__ import annotations

import random
from typing import Any

from engine.rpc.codes import Code
from engine.rpc.messages import ObjectMeta, Replica, ReplicateConfig, Segment
from p2pstore.kv.pool.pool import Pool
from p2pstore.kv.pool.settings import PoolSettings
from tests.clocks import Clock

MIB = 1 << 20


def ident(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


def segment(name: str, size: int = 64 * MIB, base: int = 1 << 32, host: str = "") -> Segment:
    return Segment(ident(f"seg-{name}"), name, base, size, name, "tcp", host)


class House:
    """A pool with a clock that stands, and short ways to do what clients do."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.settings = PoolSettings(**settings)
        self.pool = Pool(self.settings, self.clock, chance=random.Random(7))

    def join(self, name: str, size: int = 64 * MIB, base: int = 1 << 32, host: str = "") -> bytes:
        """A client that gives one segment of its own name, and pings."""
        client = ident(name)
        assert self.pool.mount(client, segment(name, size, base, host)) is Code.OK
        self.pool.ping(client)
        return client

    def start(
        self, client: bytes, keys: list[str], size: int = MIB, tenant: str = "default", **config: Any
    ) -> list[Any]:
        return self.pool.put_start(client, keys, [size] * len(keys), ReplicateConfig(**config), tenant)

    def put(self, client: bytes, keys: list[str], size: int = MIB, tenant: str = "default", **config: Any) -> list[str]:
        """Those of the keys that were put."""
        started = self.start(client, keys, size, tenant, **config)
        done = [key for key, answer in zip(keys, started, strict=True) if isinstance(answer, list)]
        assert set(self.pool.put_end(client, [ObjectMeta(key) for key in done], tenant=tenant)) <= {Code.OK}
        return done

    def later(self, seconds: float, *alive: bytes) -> None:
        """Time passes, in which ``alive`` ping; what is due is done."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(end, self.clock.now + 0.5)
            for client in alive:
                self.pool.ping(client)
            self.ticked()

    def ticked(self) -> None:
        for _ in range(100_000):
            if not self.pool.tick():
                return
        raise AssertionError("there is always more to do")

    def there(self, keys: list[str], tenant: str = "default") -> list[str]:
        """Those of the keys whose value can be read; a look, so that no lease is given."""
        return [key for key in keys if not isinstance(self.pool.peek(key, tenant), Code)]


def address(answer: Any) -> int:
    """Where the first replica of an answer lies."""
    replica: Replica = answer[0]
    return replica.place.address  # type: ignore[union-attr]


def names(prefix: str, count: int) -> list[str]:
    """So many keys."""
    return [f"{prefix}{number}" for number in range(count)]


def upsert(house: House, client: bytes, key: str, size: int = MIB, **config: object) -> list[object]:
    """Begin to put one key in place of what it has."""
    return house.pool.upsert_start(client, [key], [size], ReplicateConfig(**config))  # type: ignore[arg-type, return-value]
