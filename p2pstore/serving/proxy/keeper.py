"""Keeps a proxy's instances: probes them, takes them out and in again, adds them and removes them.

Each instance has a task that probes it; what a probe or a failed request changes, the policy is told at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from engine.net.within import within
from p2pstore.serving.events import Ejected, InstanceDown, InstanceDraining, InstanceUp, Kind
from p2pstore.serving.proxy.dispatch import Dispatcher
from p2pstore.serving.proxy.fleet import MAX_INSTANCES, BadInstance, Fleet, Member, Place
from p2pstore.serving.proxy.health import Health, State
from p2pstore.serving.proxy.knowing import Knowing
from p2pstore.serving.proxy.options import Options
from p2pstore.serving.proxy.upstream import InstanceFailed, Problem, Upstream
from p2pstore.supervisor import Supervisor

log = logging.getLogger(__name__)

OWNER = "proxy"

DRAIN_LOOK_SECONDS = 0.1
"""Between looks at whether an instance that is being removed is done."""


class Keeper:
    """Owns the fleet. All methods run on the event loop."""

    def __init__(
        self,
        options: Options,
        dispatcher: Dispatcher,
        upstream: Upstream,
        knowing: Knowing,
        supervisor: Supervisor,
        clock: Callable[[], float],
    ) -> None:
        self.fleet = Fleet()
        self._options = options
        self._dispatcher = dispatcher
        self._upstream = upstream
        self._knowing = knowing
        self._supervisor = supervisor
        self._clock = clock
        self._wakes: dict[str, asyncio.Event] = {}
        dispatcher.on_ejected = self._ejected

    def add(self, place: Place, kind: Kind) -> Member:
        """One more instance, which takes requests once a probe was good. Raises ``BadInstance``."""
        return self._added(Member(place, kind, Health(self._clock())))

    async def add_verified(self, place: Place, kind: Kind) -> Member:
        """The same, of one that is well and serves our model. Raises ``BadInstance`` and ``Problem``."""
        member = Member(place, kind, Health(self._clock()))
        self._see_that_it_is_new(member)
        await self._upstream.check(member, thorough=True)
        self._added(member)
        self._probed(member, None)
        return member

    def remove(self, member: Member) -> None:
        """Give it nothing more, and forget it once what it has is done, or after ``drain_seconds``."""
        if not member.draining:
            member.draining = True
            self._dispatcher.instance(InstanceDraining(member.name))
            self._supervisor.start("drain", OWNER, lambda: self._drain(member))
            log.info("%s takes no more requests: it is being removed (%d under way)", member.name, member.running)

    def failed(self, failure: InstanceFailed) -> None:
        """A request failed there."""
        member = failure.member
        member.failed += 1
        if member.removed:
            return  # its name may be another's by now
        now = self._clock()
        if not failure.busy:  # which does not count when it is ejected, and must not stand there as the reason
            member.last_failure = failure.detail
        if failure.refused:
            if member.health.refused(failure.detail, now):
                self._down(member)
        else:
            member.health.suspect(now)
        self._wake(member)

    def find(self, kind: Kind | None, place: Place) -> list[Member]:
        """Those at a place."""
        return [one for one in self.fleet if one.place.address == place.address and kind in {None, one.kind}]

    def next_probe(self) -> float:
        """Seconds until one that is not up is probed next: when it may be worth to come again."""
        now = self._clock()
        waits = [member.health.next_probe - now for member in self.fleet if member.health.state is not State.UP]
        return max(0.0, min(waits, default=0.0))

    def _added(self, member: Member) -> Member:
        self._see_that_it_is_new(member)
        self._knowing.listen(member)
        self.fleet.members[member.name] = member
        self._wakes[member.name] = asyncio.Event()
        self._supervisor.start("health checks", OWNER, lambda: self._watch(member))
        return member

    def _see_that_it_is_new(self, member: Member) -> None:
        if member.name in self.fleet.members:
            raise BadInstance(f"{member.place.address} is there already")
        if len(self.fleet.members) >= MAX_INSTANCES:
            raise BadInstance(f"there are {MAX_INSTANCES} instances already")

    async def _watch(self, member: Member) -> None:
        wake = self._wakes[member.name]
        while not member.removed:
            wake.clear()
            pause = member.health.next_probe - self._clock()
            if pause > 0:
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(wake.wait(), pause)
                continue
            thorough = member.health.state is not State.UP
            member.health.next_probe = self._clock() + self._options.connect_seconds
            try:
                await self._upstream.check(member, thorough=thorough)
            except Problem as problem:
                self._probed(member, problem)
            else:
                self._probed(member, None)

    def _probed(self, member: Member, problem: Problem | None) -> None:
        before = member.health.why
        refused = problem is not None and problem.refused
        changed = member.health.probed(None if problem is None else str(problem), self._clock(), refused=refused)
        if member.removed:
            return
        if changed and member.health.state is State.UP:
            log.info("%s is up", member.name)
            if not member.draining:
                self._dispatcher.instance(InstanceUp(member.name, member.kind))
                self._knowing.up(member)
        elif changed:
            self._down(member)
        elif problem is not None and member.health.why != before:
            log.warning("%s: %s", member.name, problem)

    def _down(self, member: Member) -> None:
        log.warning("%s takes no requests: %s", member.name, member.health.why)
        self._dispatcher.instance(InstanceDown(member.name))

    def _ejected(self, said: Ejected) -> None:
        member = self.fleet.members.get(said.instance)
        if member is None:
            return
        member.ejections += 1
        log.warning(
            "%s is passed over for %g s where there is another: it says that it is well, and failed %d requests "
            "in a row (the last: %s)",
            *(member.name, said.seconds, said.failures, member.last_failure),
        )

    def _wake(self, member: Member) -> None:
        wake = self._wakes.get(member.name)
        if wake is not None:
            wake.set()

    async def _drain(self, member: Member) -> None:
        deadline = self._clock() + self._options.drain_seconds
        while member.running and self._clock() < deadline:  # noqa: ASYNC110 - it ends seldom, and runs often
            await asyncio.sleep(DRAIN_LOOK_SECONDS)
        member.removed = True
        del self.fleet.members[member.name]
        self._dispatcher.instance(InstanceDown(member.name))
        self._wake(member)
        self._wakes.pop(member.name, None)
        log.info("%s is removed", member.name)
