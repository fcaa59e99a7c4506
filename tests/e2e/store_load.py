"""A client of a pooled store that puts, gets and removes without end, and knows what must be there; see test_store_chaos.py.

It runs as a process: ``STORE_MODULE`` is upstream's module or ours of the same names. What is put under a name follows from
the name, so anybody can tell whether bytes are right. Words on stdin are answered by a line of JSON each.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import sys
import threading
import time
from typing import Any

LEASED, NOT_FOUND = -706, -704
BATCH = 6
MOST = 150
"""Values that are kept; beyond, some are removed."""

MAX_LENGTH = 120_000
OTHERS = 400
"""Of the numbers of another worker, how many are guessed."""

PAUSE = 0.01
"""Seconds after a call that failed."""

CHECK_SECONDS = 90
"""For all that was put to be readable again, on a slow and busy machine."""


def value_of(name: str) -> bytes:
    seed = hashlib.sha256(name.encode()).digest()
    length = 1 + int.from_bytes(seed[:4], "little") % MAX_LENGTH
    return hashlib.shake_128(seed).digest(length)


def described(name: str, found: bytes) -> str:
    """What is wrong with a value."""
    value = value_of(name)
    if len(found) != len(value):
        return f"{name}: {len(found)} bytes in place of {len(value)}"
    places = [at for at in range(len(value)) if found[at] != value[at]]
    return f"{name}: {len(places)} of {len(value)} bytes are wrong, from {places[0]} to {places[-1]}, {found[places[0] :][:8]!r}"


class Load:
    """What one worker did."""

    def __init__(self, module: Any, store: Any, me: str, others: list[str], replicas: int) -> None:
        self.store = store
        self.config = module.ReplicateConfig()
        self.config.replica_num = replicas
        self.config.with_hard_pin = True  # what is missing was lost, then, and not evicted
        self.me = me
        self.others = others
        self.chance = random.Random(me)
        self.number = 0
        self.there: dict[str, None] = {}
        """A put ended well, and no removal was begun."""
        self.unsure: dict[str, None] = {}
        """A put or a removal ended with an error: it may be there or not."""
        self.gone: list[str] = []
        """A removal ended well."""
        self.wrong: list[str] = []
        self.good = {"put": 0, "get": 0, "remove": 0}
        self.slowest = 0.0
        self.since = 0.0
        """When the call that is under way began."""
        self.running = threading.Event()
        self.idle = threading.Event()
        self.ended = False

    def work(self) -> None:
        while not self.ended:
            if not self.running.is_set():
                self.idle.set()
                self.running.wait(0.1)
                continue
            self.idle.clear()
            try:
                good = self.chance.choice([self.put, self.put_many, self.get, self.get_many, self.get, self.remove])()
            except Exception as error:
                self.wrong.append(f"{type(error).__name__}: {error}")
                good = False
            if not good:
                time.sleep(PAUSE)

    def call(self, method: Any, *args: Any) -> Any:
        self.since = time.monotonic()
        try:
            return method(*args)
        finally:
            self.slowest = max(self.slowest, time.monotonic() - self.since)
            self.since = 0.0

    def names(self, count: int) -> list[str]:
        first, self.number = self.number, self.number + count
        return [f"{self.me}-{number}" for number in range(first, self.number)]

    def put(self) -> bool:
        if len(self.there) > MOST:
            return self.remove()
        (name,) = self.names(1)
        code = self.call(self.store.put, name, value_of(name), self.config)
        return self.was_put([name], code)

    def put_many(self) -> bool:
        if len(self.there) > MOST:
            return self.remove()
        names = self.names(BATCH)
        code = self.call(self.store.put_batch, names, [value_of(name) for name in names], self.config)
        return self.was_put(names, code)

    def was_put(self, names: list[str], code: int) -> bool:
        if code == 0:
            self.there.update(dict.fromkeys(names))
            self.good["put"] += 1
        else:
            self.unsure.update(dict.fromkeys(names))
        return code == 0

    def some(self, count: int) -> list[str]:
        mine = self.chance.sample(list(self.there), min(count, len(self.there)))
        theirs = [f"{self.chance.choice(self.others)}-{self.chance.randrange(OTHERS)}" for _ in range(count)]
        both = list(dict.fromkeys([*mine, *theirs]))
        return self.chance.sample(both, min(count, len(both)))

    def get(self) -> bool:
        (name,) = self.some(1)
        return self.judge(name, self.call(self.store.get, name))

    def get_many(self) -> bool:
        names = self.some(BATCH)
        found = self.call(self.store.get_batch, names)
        return sum(self.judge(name, value) for name, value in zip(names, found, strict=True)) > 0

    def judge(self, name: str, found: bytes) -> bool:
        """Whether the value came; none is no wrong one while masters and owners come and go."""
        if found and found != value_of(name):
            self.wrong.append(described(name, found))
        self.good["get"] += bool(found)
        return bool(found)

    def remove(self) -> bool:
        """Without force: who reads a value has a lease, and must not get the bytes of another in its place."""
        names = self.unsure or self.there
        if not names:
            return False
        name = self.chance.choice(list(names))
        del names[name]
        code = self.call(self.store.remove, name)
        if code == 0:
            self.gone.append(name)
            self.good["remove"] += 1
        elif code == LEASED:
            names[name] = None
        elif code != NOT_FOUND or names is self.there:
            self.unsure[name] = None
        return code == 0

    def pause(self) -> None:
        self.running.clear()
        self.idle.clear()
        self.idle.wait(CHECK_SECONDS)

    def check(self) -> dict[str, object]:
        """Pause, and look at all: what was put and cannot be read, and what was removed and can."""
        self.pause()
        deadline = time.monotonic() + CHECK_SECONDS
        missing = list(self.there)
        while missing and time.monotonic() < deadline:
            missing = [name for name in missing if not self.judge(name, self.call(self.store.get, name))]
            time.sleep(0.2 if missing else 0.0)
        back = [name for name in self.gone if self.call(self.store.get, name)]
        self.gone.clear()
        told = self.told()
        self.slowest = 0.0
        return {"kept": len(self.there), "missing": missing, "back": back, **told}

    def forget(self) -> None:
        """Of what was put nothing need be there from now on."""
        self.pause()
        self.unsure.update(self.there)
        self.there.clear()
        self.running.set()

    def told(self) -> dict[str, object]:
        return {
            "wrong": self.wrong,
            "good": dict(self.good),
            "slowest": self.slowest,
            "under_way": time.monotonic() - self.since if self.since else 0.0,
        }


def main() -> None:
    module = importlib.import_module(os.environ["STORE_MODULE"])
    store = module.MooncakeDistributedStore()
    given = json.loads(os.environ["STORE_LOAD"])
    code = store.setup(given["name"], "P2PHANDSHAKE", given["segment"], 32 << 20, "tcp", "", given["master"])
    print("answer " + json.dumps(code), flush=True)
    load = Load(module, store, given["me"], given["others"], given["replicas"])
    thread = threading.Thread(target=load.work, daemon=True)
    thread.start()
    for line in sys.stdin:
        do, *args = json.loads(line)
        answer: object = None
        if do == "go":
            load.running.set()
        elif do == "told":
            answer = load.told()
        elif do == "check":
            answer = load.check()
        elif do == "forget":
            load.forget()
        elif do == "put":
            answer = store.put(args[0], value_of(args[0]))
        elif do == "get":
            found = store.get(args[0])
            answer = "none" if not found else "right" if found == value_of(args[0]) else "wrong"
        print("answer " + json.dumps(answer), flush=True)
    load.ended = True
    thread.join(30)
    store.close()


if __name__ == "__main__":
    main()
