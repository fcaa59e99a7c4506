"""Has a prefix that many ask for copied to one more prefill instance, by the one way there is: a prompt that begins so.

No engine copies KV cache at another's word. But one that is to compute a prompt takes of it what the pooled store has,
computes the rest, and keeps all of it. So a request under way that begins with the prefix is sent there as well, as the
copy that ends after one token. That is done for the operator and not for the client: with the proxy's own key, and what
becomes of it nobody waits for. So it is one that an instance has computed, with its client's key: who has none gets
nothing computed with ours.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import aiohttp

from engine.net.within import within
from p2pstore.serving.events import Replicate
from p2pstore.serving.proxy.dispatch import Dispatcher
from p2pstore.serving.proxy.fleet import Member
from p2pstore.serving.proxy.keeper import OWNER, Keeper
from p2pstore.serving.proxy.options import MAX_ANSWER_BYTES, Options
from p2pstore.serving.proxy.requests import Asked, prefill_body
from p2pstore.serving.proxy.stats import Stats
from p2pstore.serving.proxy.upstream import InstanceFailed, Upstream, broken, read
from p2pstore.supervisor import Policy, Supervisor

MOST_AT_ONCE = 2
"""Copies under way: they are work that no client waits for, beside work that some do."""

COPY_SECONDS = 60.0
"""For one of them."""

log = logging.getLogger(__name__)


class Copies:
    """Carries out what the policy says of hot prefixes."""

    def __init__(
        self,
        options: Options,
        dispatcher: Dispatcher,
        upstream: Upstream,
        keeper: Keeper,
        stats: Stats,
        supervisor: Supervisor,
    ) -> None:
        self._dispatcher, self._upstream, self._keeper = dispatcher, upstream, keeper
        self._stats, self._supervisor = stats, supervisor
        self._headers = {"Content-Type": "application/json"}
        if options.engine_key is not None:
            self._headers["Authorization"] = f"Bearer {options.engine_key}"
        self._running = 0
        dispatcher.on_replicate = self._wanted

    def _wanted(self, decision: Replicate) -> None:
        member = self._keeper.fleet.members.get(decision.target)
        if member is None or self._running >= MOST_AT_ONCE:
            return
        rider = self._dispatcher.beginning_with(decision.blocks)
        if rider is None:
            return  # by the next time one may be under way, if it is as hot as that
        self._running += 1
        work = partial(self._copy, member, rider.asked, decision)
        self._supervisor.start("copies of hot prefixes", OWNER, work, Policy.ONCE)

    async def _copy(self, member: Member, asked: Asked, decision: Replicate) -> None:
        member.running += 1
        try:
            status = await within(self._ask(member, asked), COPY_SECONDS)
        except asyncio.TimeoutError:
            log.info("%s did not take a copy of a hot prefix in %g s", member.name, COPY_SECONDS)
        except InstanceFailed as failure:
            self._keeper.failed(failure)
        else:
            if status == 200:
                self._stats.copies += 1
                self._dispatcher.computed(member.name, decision.blocks)
            else:
                log.info("%s took no copy of a hot prefix: it answers with status %d", member.name, status)
        finally:
            member.running -= 1
            self._running -= 1

    async def _ask(self, member: Member, asked: Asked) -> int:
        answer = await self._upstream.post(member, asked.path, prefill_body(asked, None), self._headers)
        try:
            await read(answer, MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, OSError) as error:
            raise broken(member, error) from None
        finally:
            answer.close()
        return answer.status
