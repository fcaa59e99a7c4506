"""A pool against a model of it: whatever clients do, in whatever order."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.rpc.codes import Code
from engine.rpc.messages import LocalDisk, ObjectMeta, ReplicateConfig, SoftPin, StoredObject
from p2pstore.kv.pool.extents import ALIGN, rounded
from p2pstore.kv.pool.pool import Pool
from p2pstore.kv.pool.settings import PoolSettings
from p2pstore.kv.pool.walks import whole
from tests.clocks import Clock
from tests.p2pstore.kv.pool.pools import ident, segment

CLIENTS = ("a", "b", "c")
KEYS = tuple(f"k{number}" for number in range(12))
SIZE = 24 * ALIGN
"""Of a segment: so small that room is always short."""

clients = st.sampled_from(CLIENTS)
keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True)


class PoolMachine(RuleBasedStateMachine):
    """What was written is known here by address; a reader must find it there, whole."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.settings = PoolSettings(
            keep_absent=40.0, log=True, offload=True, promotion_on_hit=True, promotion_hits=1, high_watermark=0.99
        )
        self.pool = Pool(self.settings, self.clock, chance=random.Random(1))
        self.told: dict[tuple[str, str], Any] = {}  # of each client and key: what it is to write to its disk
        self.disks: dict[tuple[str, str], Any] = {}  # what it has there: whose bytes
        self.copies: dict[tuple[str, str], tuple[bool, Any, list[Any]]] = {}  # under way: move?, source, targets
        self.began: dict[tuple[str, str], tuple[list[Any], int]] = {}  # of each writer and key: places, checksum
        self.memory: dict[tuple[str, int], Any] = {}  # endpoint and address -> key, checksum
        self.leased: dict[str, tuple[float, tuple[int, ...]]] = {}
        self.hard: dict[str, int] = {}
        self.to_be_hard: set[int] = set()
        self.leaving: list[float] = []  # when owners take their memory back
        self.number = 0
        self.records: list[bytes] = []

    # -- what clients do

    @rule(client=clients)
    def mount(self, client: str) -> None:
        self.pool.mount(ident(client), segment(client, SIZE))
        self.pool.mount_disk(ident(client), True)

    @rule(client=clients)
    def ping(self, client: str) -> None:
        if self.pool.ping(ident(client)).status == 2:
            self.pool.remount(ident(client), [segment(client, SIZE)])

    @rule(client=clients, grace=st.sampled_from([0.0, 3.0]))
    def unmount(self, client: str, grace: float) -> None:
        self.pool.unmount(ident(client), ident(f"seg-{client}"), grace)
        self.leaving.append(self.clock.now + grace)
        self._see_who_has_left()

    def _see_who_has_left(self) -> None:
        """An owner takes its memory back when its grace has passed, whoever has a lease on what lies there."""
        left = [at for at in self.leaving if at > self.clock.now]
        if len(left) < len(self.leaving):
            self.leaving = left
            self.leased.clear()
            self.hard.clear()

    @rule(client=clients)
    def lose(self, client: str) -> None:
        self.pool.lost(ident(client))

    @rule(
        client=clients, wanted=keys, size=st.integers(1, 8 * ALIGN), replicas=st.integers(1, 3),
        pin=st.sampled_from(["", "", "soft", "hard"]), group=st.booleans(), upsert=st.booleans(),
    )  # fmt: skip
    def start(
        self, client: str, wanted: list[str], size: int, replicas: int, pin: str, group: bool, upsert: bool
    ) -> None:
        config = ReplicateConfig(
            replica_num=replicas,
            with_hard_pin=pin == "hard",
            soft_pin_action=SoftPin.ENABLE if pin == "soft" else SoftPin.PRESERVE,
            group_ids=["g"] * len(wanted) if group else None,
        )
        call = self.pool.upsert_start if upsert else self.pool.put_start
        for key, answer in zip(wanted, call(ident(client), wanted, [size] * len(wanted), config), strict=True):
            if isinstance(answer, Code):
                if answer is Code.EXISTS:
                    assert not isinstance(self.pool.peek(key), Code), "said to be there, and cannot be read"
                continue
            for other in CLIENTS:
                if other != client:
                    self.began.pop((other, key), None)
            self.number += 1
            self.began[client, key] = (answer, self.number)
            self.leased.pop(key, None)
            self.hard.pop(key, None)
            for replica in answer:  # the client writes at once, and may end later
                self._fill(replica, (key, self.number))
            if pin == "hard":
                self.to_be_hard.add(self.number)

    @precondition(lambda self: self.began)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        client, key = data.draw(st.sampled_from(sorted(self.began)))
        _, checksum = self.began.pop((client, key))
        (code,) = self.pool.put_end(ident(client), [ObjectMeta(key, checksum)])
        if code is Code.OK:
            assert not isinstance(self.pool.peek(key), Code)
            if checksum in self.to_be_hard:
                self.hard[key] = checksum

    @precondition(lambda self: self.began)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        client, key = data.draw(st.sampled_from(sorted(self.began)))
        del self.began[client, key]
        self.hard.pop(key, None)
        self.pool.put_revoke(ident(client), [key])

    @rule(wanted=keys)
    def exist(self, wanted: list[str]) -> None:
        for key, found in zip(wanted, self.pool.exist(wanted), strict=True):
            if found:
                looked = self.pool.peek(key)
                assert not isinstance(looked, Code)
                self.leased[key] = (self.clock.now + 10, tuple(replica.id for replica in looked.replicas))

    # -- disks, copies and moves: each reads what lies there when it ends, however late that is

    @rule(client=clients, able=st.booleans())
    def ask_for_disk(self, client: str, able: bool) -> None:
        items = self.pool.offload_heartbeat(ident(client), able)
        for item in [] if isinstance(items, Code) else items:
            entry = self.pool._index.tenants["default"].keys.get(item.key)
            offload = self.pool._disks._offloads.get(entry) if entry is not None else None
            if offload is not None:
                self.told[client, item.key] = (item, offload.source.described(item.size).place)

    @precondition(lambda self: self.told)
    @rule(data=st.data(), done=st.booleans())
    def wrote_to_disk(self, data: st.DataObject, done: bool) -> None:
        client, key = data.draw(st.sampled_from(sorted(self.told)))
        item, place = self.told.pop((client, key))
        self.disks[client, key] = self.memory[place.endpoint, place.address]
        stored = StoredObject(0, 0, 0, item.size if done else -1, client)
        self.pool.offloaded(ident(client), [item], [stored])

    @rule(client=clients)
    def bring_back(self, client: str) -> None:
        items = self.pool.promotion_heartbeat(ident(client))
        for item in [] if isinstance(items, Code) else items:
            staged = self.pool.promotion_start(ident(client), item.key, item.size)
            if not isinstance(staged, Code):
                self._fill(staged, self.disks[client, item.key])
                self.pool.promotion_done(ident(client), item.key)

    @rule(client=clients, key=st.sampled_from(KEYS), source=clients, goal=clients, move=st.booleans())
    def start_copy(self, client: str, key: str, source: str, goal: str, move: bool) -> None:
        plan: Any
        if move:
            plan = self.pool.move_start(ident(client), key, source, goal)
            targets = [] if isinstance(plan, Code) or plan.target is None else [plan.target]
        else:
            plan = self.pool.copy_start(ident(client), key, source, [goal])
            targets = [] if isinstance(plan, Code) else plan.targets
        if not isinstance(plan, Code):
            self.copies[client, key] = (move, plan.source, targets)

    @precondition(lambda self: self.copies)
    @rule(data=st.data(), done=st.booleans())
    def end_copy(self, data: st.DataObject, done: bool) -> None:
        client, key = data.draw(st.sampled_from(sorted(self.copies)))
        move, source, targets = self.copies.pop((client, key))
        place = source.place
        for target in targets:
            self._fill(target, self.memory[place.endpoint, place.address])
        pool = self.pool
        if done:
            (pool.move_end if move else pool.copy_end)(ident(client), key)
        else:
            (pool.move_revoke if move else pool.copy_revoke)(ident(client), key)

    def _fill(self, replica: Any, content: Any) -> None:
        place = replica.place
        for at in range(place.address, place.address + place.size, ALIGN):
            self.memory[place.endpoint, at] = content

    @rule(wanted=keys)
    def read(self, wanted: list[str]) -> None:
        for key, found in zip(wanted, self.pool.replicas(wanted), strict=True):
            if not isinstance(found, Code):
                self.leased[key] = (self.clock.now + 10, ())

    @rule(wanted=keys, force=st.booleans())
    def remove(self, wanted: list[str], force: bool) -> None:
        for key, code in zip(wanted, self.pool.remove(wanted, force), strict=True):
            until, _ = self.leased.get(key, (0.0, ()))
            if until > self.clock.now and not force and code is not Code.NOT_READY:
                assert code in {Code.LEASED, Code.NOT_FOUND}
            if code in {Code.OK, Code.NOT_FOUND}:
                self.leased.pop(key, None)
                self.hard.pop(key, None)

    @rule(force=st.booleans())
    def remove_all(self, force: bool) -> None:
        for key in list(self.leased):
            if isinstance(self.pool.peek(key), Code):
                del self.leased[key]  # its owner is absent: it is not to come back with it
        whole(self.pool.remove_all(force))
        self.hard.clear()
        if force:
            self.leased.clear()

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 11.0, 31.0, 700.0]))
    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        for _ in range(1000):
            if not self.pool.tick():
                break
        else:
            raise AssertionError("there is always more to do")
        self._see_who_has_left()
        if seconds > 3:
            self.hard.clear()  # their owners may be gone

    # -- what must always be so

    @invariant()
    def a_reader_finds_what_was_written_for_that_key(self) -> None:
        for key in KEYS:
            looked = self.pool.peek(key)
            if isinstance(looked, Code):
                continue
            for replica in looked.replicas:
                place: Any = replica.place
                if isinstance(place, LocalDisk):
                    assert self.disks[place.endpoint, key] == (key, looked.checksum), "another's, on a disk"
                    continue
                for at in range(place.address, place.address + place.size, ALIGN):
                    assert self.memory[place.endpoint, at] == (key, looked.checksum), "half put, or another's"

    @invariant()
    def no_two_places_overlap(self) -> None:
        index = self.pool._index
        spans: dict[Any, list[tuple[int, int]]] = {}
        for entry in index.entries():
            for held in entry.memory:
                spans.setdefault(held.segment, []).append((held.offset, held.offset + rounded(entry.size)))
        for each in index.discarded:
            spans.setdefault(each.segment, []).append((each.offset, each.offset + rounded(each.size)))
        for segment_, taken in spans.items():
            taken.sort()
            assert all(end <= start for (_, end), (start, _) in pairwise(taken))
            if not segment_.gone:
                assert segment_.extents.used == sum(end - start for start, end in taken)

    @invariant()
    def accounts_are_right(self) -> None:
        index = self.pool._index
        alive = [each for each in index.segments if each.alive]
        assert index.segments.used == sum(each.extents.used for each in alive)
        assert index.segments.capacity == sum(each.extents.capacity for each in alive)
        entries = list(index.entries())
        assert index.stats.key_count == len(entries)
        assert index.key_bytes == sum(len(entry.key) for entry in entries)
        for tenant in index.tenants.values():
            assert tenant.used == sum(entry.size * len(entry.memory) for entry in tenant.keys.values())
        written = {entry for entry in entries if entry not in index.writing}
        assert {*index.order.plain, *index.order.soft, *index.order.hard, *index.order.cold} == written
        assert index.order.plain.held - index.order.plain.gone == len(list(index.order.plain))
        assert index.order.soft.held - index.order.soft.gone == len(list(index.order.soft))
        assert index.stats.soft_pin_key_count == sum(
            entry.more is not None and entry.more.pinned_until > 0 and not entry.more.hard for entry in written
        )
        for entry in entries:
            assert entry.place or entry in index.writing
            group = entry.more.group if entry.more else None
            assert group is None or (entry in group.members and entry.tenant.groups[group.name] is group)

    @invariant()
    def leased_values_and_hard_pinned_ones_stay(self) -> None:
        index = self.pool._index
        present = set(self.pool.keys())
        for key, (until, _) in list(self.leased.items()):
            entry = index.tenants["default"].keys.get(key)
            absent = entry is not None and not entry.readable
            assert until <= self.clock.now or key in present or absent or key in self._being_written(), key
        for key in self.hard:
            assert index.tenants["default"].keys.get(key) is not None, key

    def _being_written(self) -> set[str]:
        return {entry.key for entry in self.pool._index.writing}


PoolMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, phases=[Phase.reuse, Phase.generate]
)
test_whatever_clients_do = PoolMachine.TestCase
