"""Who calls: for each connection what it speaks, how much of that failed, and what nobody here knows. Pure."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from engine.rpc.codes import Code
from p2pstore.kv.master.limits import MAX_CLIENTS, MAX_GONE_CALLERS, MAX_UNKNOWN

OTHERS = "others"
"""Under which unknown calls are counted once there are too many different ones."""


class Caller:
    """One connection, by the address that it comes from."""

    __slots__ = (
        "address", "calls", "clients", "connected", "failures", "first", "found", "generation", "last", "lookups",
        "malformed", "tenants", "turned_away", "unknown",
    )  # fmt: skip

    def __init__(self, address: str, now: float) -> None:
        self.address = address
        self.generation = ""
        """The generation that it is answered as, empty until it called."""
        self.connected = True
        self.first = now
        self.last = now
        """When it was last heard, if it is gone."""
        self.calls = 0
        self.failures: Counter[Code] = Counter()
        self.malformed = 0
        self.unknown: Counter[str] = Counter()
        self.turned_away: Counter[str] = Counter()
        """How often it was refused or cut off, by the words of ``advice.ENDED``."""
        self.lookups = 0
        """Keys that it asked about."""
        self.found = 0
        self.clients: set[bytes] = set()
        self.tenants: set[str] = set()

    def did_not_know(self, call: str) -> bool:
        """Count a call that nobody here knows; tells whether it is the first of its name."""
        if call not in self.unknown and len(self.unknown) >= MAX_UNKNOWN:
            call = OTHERS
        self.unknown[call] += 1
        return self.unknown[call] == 1

    def of_tenant(self, tenant: str) -> None:
        """It named a tenant."""
        if len(self.tenants) < MAX_CLIENTS:
            self.tenants.add(tenant)


class Callers:
    """All connections by address, those that are gone for a while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.known: dict[str, Caller] = {}
        self._gone: OrderedDict[str, Caller] = OrderedDict()

    def came(self, address: str) -> Caller:
        """A connection was opened."""
        self._gone.pop(address, None)
        caller = self.known[address] = Caller(address, self._clock())
        return caller

    def went(self, caller: Caller, heard: float) -> None:
        """A connection is gone, over which something was heard last at that time."""
        caller.connected = False
        caller.last = heard
        if self.known.get(caller.address) is not caller:
            return
        self._gone[caller.address] = caller
        while len(self._gone) > MAX_GONE_CALLERS:
            address, _ = self._gone.popitem(last=False)
            del self.known[address]
