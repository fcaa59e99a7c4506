"""The life of one request: placed, computed, decoded, passed on to its client, and begun anew where an instance fails.

Until the first token nothing is sent to the client, so that it can begin anew elsewhere unseen. From then on a failure
ends the stream with an event that says so. Of a stream only whole events are passed on.

What others may do to it is in ``waits``, and what its client gets in ``reply``.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import hdrs, web

from p2pstore.serving.admission import MOST_RETRY_SECONDS
from p2pstore.serving.events import Decode, Lost, Place, Reason, Reject
from p2pstore.serving.proxy import failures, refusals
from p2pstore.serving.proxy.asking import Asking
from p2pstore.serving.proxy.dispatch import Fate
from p2pstore.serving.proxy.events import Events, Says, count, look
from p2pstore.serving.proxy.failures import Answer
from p2pstore.serving.proxy.fleet import KINDS, Member
from p2pstore.serving.proxy.options import MAX_FIRST_BYTES
from p2pstore.serving.proxy.parts import Parts
from p2pstore.serving.proxy.prompts import measured
from p2pstore.serving.proxy.reply import REQUEST_ID, Reply
from p2pstore.serving.proxy.requests import Asked, decode_body, decode_transfer, prefill_body, prefill_transfer
from p2pstore.serving.proxy.upstream import InstanceFailed, passed_on
from p2pstore.serving.proxy.waits import Waits

log = logging.getLogger(__name__)

PASSED_TO_INSTANCES = (hdrs.AUTHORIZATION, "traceparent", "tracestate")
"""Headers of a request that go to both instances as they are."""

MAX_TENANT = 128
"""Characters of a user's name by which requests are told from others'."""

RANK = "X-data-parallel-rank"
"""Which engine of a prefill instance is meant."""

EVENT_STREAM = "text/event-stream"


class _Moved(Exception):
    """The request goes on as ``fate`` says."""

    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self.fate = fate


class Exchange:
    """One request."""

    def __init__(self, parts: Parts, request: web.Request, asked: Asked, *, keys: bool) -> None:
        self._parts = parts
        self.asked = asked
        self._keys = keys
        self._began = parts.clock()
        self._reply = Reply(request, parts.clock)
        self._waits = Waits(parts.clock)
        self._asking = Asking(parts.upstream, self._waits, asked.path)
        self._number = 0
        self._attempts = 0
        self._output = 0
        self._complete = False
        self._failure: InstanceFailed | None = None
        self._source: Member | None = None
        """Who has its KV cache, until the decode instance has it."""
        self._headers = {name: request.headers[name] for name in PASSED_TO_INSTANCES if name in request.headers}
        self._headers["Content-Type"] = "application/json"

    async def run(self) -> web.StreamResponse:
        """Serve it to its end, in the task that it was made in. Raises what aiohttp raises where the client is gone."""
        parts, asked = self._parts, self.asked
        prompt = await parts.knowing.prompt(asked, self._headers, parts.keeper.fleet) if self._keys else None
        if prompt is None:
            # Its text has other keys than its tokens: where engines are listened to, those would be of no use.
            keys = self._keys and not parts.knowing.listens
            prompt = measured(asked.body, parts.options.policy.block_tokens, keys=keys)
        user = asked.body.get("user")
        tenant = user[:MAX_TENANT] if isinstance(user, str) else ""
        self._number, fate = parts.dispatcher.arrive(self, prompt, asked.limit, tenant)
        try:
            return await self._ride(fate)
        finally:
            parts.dispatcher.finish(self._number, self._output, complete=self._complete)
            parts.stats.tokens += self._output
            if self._complete:
                parts.stats.whole.observe(parts.clock() - self._began)

    # What others do to it

    def moved(self, fate: Fate) -> None:
        """See ``Rider``."""
        self._waits.moved(fate)

    def end(self) -> None:
        """The proxy ends."""
        self._waits.end()

    def look(self, now: float, idle: float, client: float) -> None:
        """See whether the instance or the client has been silent for too long."""
        if not self._waits.look(now, idle) and self._reply.stuck(now, client):
            log.info("request %s: its client took nothing for %g s, and is cut off", self._reply.id, client)
            self._reply.cut()

    # Its way

    async def _ride(self, fate: Fate) -> web.StreamResponse:
        while True:
            if isinstance(fate, Reject):
                return await self._rejected(fate)
            if isinstance(fate, Lost):
                return await self._lost()
            self._waits.fate = None
            try:
                assert isinstance(fate, Place)  # noqa: S101 - a decode alone is asked for and answered in an attempt
                return await self._attempt(fate)
            except _Moved as moved:
                fate = moved.fate
            except asyncio.CancelledError:
                fate = await self._why_cancelled()
            except InstanceFailed as failure:
                fate = self._after(failure)
            finally:
                self._waits.over()
                self._needs(None)

    def _needs(self, source: Member | None) -> None:
        """A prefill instance is not done with it before its KV cache was fetched."""
        if self._source is not None:
            self._source.running -= 1
        self._source = source
        if source is not None:
            source.running += 1

    async def _why_cancelled(self) -> Fate:
        """Where we did it, how it goes on. Else the client has left."""
        ours, member = self._waits.ended()
        if not ours or not self._reply.connected:
            raise asyncio.CancelledError
        if self._waits.ending:
            return Lost(self._number)
        if self._waits.fate is not None:
            return self._waits.fate
        assert member is not None  # noqa: S101 - only who waits is cut
        idle = self._parts.options.idle_seconds
        return self._after(InstanceFailed(member, f"nothing came for {idle:g} s"))

    def _after(self, failure: InstanceFailed) -> Fate:
        """An instance failed: where it goes on."""
        self._waits.over()  # what follows may move this very request, which is at work and must not be cancelled
        self._failure = failure
        self._parts.keeper.failed(failure)
        fate = self._waits.fate or self._parts.dispatcher.failed(self._number, failure.member.name, busy=failure.busy)
        if isinstance(fate, Place):
            log.warning("request %s is begun anew: %s", self._reply.id, failure)
            self._parts.stats.retries[failure.member.kind.value] += 1
        return fate

    async def _attempt(self, place: Place) -> web.StreamResponse:
        parts, asked, options = self._parts, self.asked, self._parts.options
        prefill = parts.keeper.fleet.members[place.prefill]
        self._attempts += 1
        name = self._reply.id if self._attempts == 1 else f"{self._reply.id}-{self._attempts}"
        headers = {**self._headers, REQUEST_ID: name}
        if asked.alone:
            return await self._relay(prefill, asked.raw, headers, alone=True)
        if not options.p2p:
            said = await self._prefill(prefill, prefill_body(asked, None), headers)
            if isinstance(said, Answer):
                return self._reply.whole(said)
            return await self._relay(self._decoder(prefill), asked.raw, headers)
        rank = prefill.next_rank()
        transfer = f"xfer-{uuid.uuid4().hex}"
        its = headers if rank is None or len(prefill.ranks) == 1 else {**headers, RANK: rank[0]}
        said = await self._prefill(prefill, prefill_body(asked, prefill_transfer(transfer)), its)
        if isinstance(said, Answer):
            return self._reply.whole(said)
        answered = said.get("kv_transfer_params")
        kv = decode_transfer(
            answered if isinstance(answered, dict) else None,
            transfer,
            prefill.place.bootstrap_url,
            rank[1] if rank is not None else None,
        )
        self._needs(prefill)
        return await self._relay(self._decoder(prefill), decode_body(asked, kv), headers)

    def _decoder(self, prefill: Member) -> Member:
        """The prompt is computed: who decodes it."""
        fate = self._parts.dispatcher.prefilled(self._number, prefill.name)
        if isinstance(fate, Decode):
            return self._parts.keeper.fleet.members[fate.decode]
        raise _Moved(self._waits.fate or fate or Lost(self._number))

    async def _prefill(self, member: Member, body: bytes, headers: Mapping[str, str]) -> Answer | dict[str, Any]:
        """Have the prompt computed: what the instance says, or what the client must be told."""
        began = self._parts.clock()
        member.running += 1
        try:
            answer = await self._asking.post(member, body, headers)
            try:
                whole = await self._asking.whole(member, answer)
                if answer.status != 200:
                    return _error(member, answer, whole)
            finally:
                answer.close()
        finally:
            member.running -= 1
        said = failures.parsed(whole)
        if said is None:
            raise InstanceFailed(member, "it answers a prefill with what is no JSON")
        member.served += 1
        self._parts.stats.prefill.observe(self._parts.clock() - began)
        return said

    async def _relay(
        self, member: Member, body: bytes, headers: Mapping[str, str], *, alone: bool = False
    ) -> web.StreamResponse:
        """Have it answered by an instance, and pass that on."""
        member.running += 1
        try:
            answer = await self._asking.post(member, body, headers)
            try:
                if answer.status != 200:
                    return self._reply.whole(_error(member, answer, await self._asking.whole(member, answer)))
                pass_on = self._stream if self.asked.stream else self._whole
                return await pass_on(member, answer, alone)
            finally:
                if not self._complete:
                    answer.close()
        finally:
            member.running -= 1

    async def _whole(self, member: Member, answer: aiohttp.ClientResponse, alone: bool) -> web.StreamResponse:  # noqa: FBT001
        whole = await self._asking.whole(member, answer)
        said = failures.parsed(whole)
        if said is None:
            raise InstanceFailed(member, "its answer is no JSON")
        self._first(member, alone=alone)
        self._output = _tokens(said.get("usage"), most=len(whole))
        self._done(member)
        return self._reply.whole(Answer(200, whole, passed_on(answer)))

    async def _stream(self, member: Member, answer: aiohttp.ClientResponse, alone: bool) -> web.StreamResponse:  # noqa: FBT001
        if answer.content_type != EVENT_STREAM:
            raise InstanceFailed(member, f"it answers a stream with {answer.content_type}")
        parts, reply, events, held = self._parts, self._reply, Events(), b""
        while (whole := await self._asking.more(member, answer, events)) is not None:
            if not whole:
                continue
            if not reply.begun:
                held += whole
                says, problem = look(held)
                if says is Says.NOTHING and len(held) <= MAX_FIRST_BYTES:
                    continue
                if says is Says.ERROR and problem is not None:
                    return reply.whole(refusals.of_stream(member, problem))
                if says is not Says.TOKEN:
                    raise InstanceFailed(member, "what it streams are no events of the API")
                self._first(member, alone=alone)
                whole = held
            came = count(whole)
            self._output += came
            parts.dispatcher.tokens(self._number, came, held=reply.held)  # from here on it is not begun anew
            if not reply.begun:
                await reply.begin(passed_on(answer))
            if events.done:
                self._done(member)
                parts.upstream.read_end(answer)
                return await reply.send(whole, last=True)
            await reply.send(whole)
        raise InstanceFailed(member, "its stream ended before it was done")

    # What the client gets

    def _first(self, member: Member, *, alone: bool) -> None:
        """The first token is there."""
        if alone:
            self._parts.dispatcher.prefilled(self._number, member.name, alone=True)
        self._needs(None)
        self._parts.dispatcher.begun(self._number)
        self._parts.stats.first.observe(self._parts.clock() - self._began)

    def _done(self, member: Member) -> None:
        """The answer is whole."""
        member.served += 1
        self._complete = True

    async def _rejected(self, fate: Reject) -> web.StreamResponse:
        self._parts.stats.refused[fate.reason.value] += 1
        if fate.reason is not Reason.NO_INSTANCE:
            what = "the first token" if fate.reason is Reason.TTFT else "each token"
            return await self._reply.error(failures.too_late(fate.reason.value, what, fate.predicted, fate.retry_after))
        if self._failure is not None:
            return await self._lost()
        lacking = [name for name, kind in KINDS.items() if not self._parts.keeper.fleet.of(kind)]
        retry = min(MOST_RETRY_SECONDS, self._parts.keeper.next_probe())
        return await self._reply.error(failures.no_instance(lacking, retry))

    async def _lost(self) -> web.StreamResponse:
        """Instances failed it for good."""
        self._parts.stats.lost += 1
        failure = self._failure
        if self._waits.ending:
            return await self._reply.error(failures.ending())
        log.warning("request %s is lost: %s", self._reply.id, failure or "its instance is gone")
        if failure is None:
            return await self._reply.error(failures.instance_failed())
        said = failure.answer or failures.instance_failed(failure.member.kind.value, failure.detail)
        return await self._reply.error(said)


def _tokens(usage: Any, *, most: int) -> int:
    """How many a whole answer says that it has. An engine may say anything; none has more than its ``most`` bytes."""
    said = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return min(max(said, 1), most) if isinstance(said, int) else 1


def _error(member: Member, answer: aiohttp.ClientResponse, body: bytes) -> Answer:
    return refusals.of_answer(member, answer.status, body, passed_on(answer))
