"""The life of one request: placed, computed, decoded, passed on to its client, and begun anew where an instance fails.

Until the first token nothing is sent to the client, so that it can begin anew elsewhere unseen. From then on a failure
ends the stream with an event that says so. Of a stream only whole events are passed on.

What others may do to it (the policy moves it; nothing has come for too long; the proxy ends) cancels its task, but only
while it waits for an instance; all else it notices before it does so again.
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
from p2pstore.serving.proxy import failures
from p2pstore.serving.proxy.dispatch import Fate
from p2pstore.serving.proxy.events import BadStream, Events, Says, count, look
from p2pstore.serving.proxy.failures import Answer
from p2pstore.serving.proxy.fleet import KINDS, Member
from p2pstore.serving.proxy.options import MAX_ANSWER_BYTES, MAX_FIRST_BYTES
from p2pstore.serving.proxy.parts import Parts
from p2pstore.serving.proxy.prompts import measured
from p2pstore.serving.proxy.requests import Asked, decode_body, decode_transfer, prefill_body, prefill_transfer
from p2pstore.serving.proxy.upstream import InstanceFailed, broken, passed_on, read

log = logging.getLogger(__name__)

PASSED_TO_INSTANCES = (hdrs.AUTHORIZATION, "traceparent", "tracestate")
"""Headers of a request that go to both instances as they are."""

REQUEST_ID = "X-Request-Id"
MAX_REQUEST_ID = 128
"""Characters; a longer one is not believed."""

RANK = "X-data-parallel-rank"
"""Which engine of a prefill instance is meant."""

ELSEWHERE = frozenset({429, *range(500, 600)})
"""Statuses of an instance after which another is asked. Other errors are the client's."""

EVENT_STREAM = "text/event-stream"

HELD_SECONDS = 0.005
"""A client that takes what it is sent is waited for no longer: it is copied to the kernel's buffer."""


class _Moved(Exception):
    """The request goes on as ``fate`` says."""

    def __init__(self, fate: Fate) -> None:
        super().__init__()
        self.fate = fate


class Exchange:
    """One request."""

    def __init__(self, parts: Parts, request: web.Request, asked: Asked, *, keys: bool) -> None:
        self._parts = parts
        self._request = request
        self._asked = asked
        self._keys = keys
        self._began = parts.clock()
        self._number = 0
        self._attempts = 0
        self._output = 0
        self._complete = False
        self._response: web.StreamResponse | None = None
        self._failure: InstanceFailed | None = None
        self._task: asyncio.Task[Any] | None = None
        self._fate: Fate | None = None
        self._ending = False
        self._cut = False
        self._waits_on: Member | None = None
        self._source: Member | None = None
        """Who has its KV cache, until the decode instance has it."""
        self._since = 0.0
        self._sends_since: float | None = None
        self._held = False
        """Whether its client took the last tokens so slowly that those behind them had to wait."""
        given = request.headers.get(REQUEST_ID, "")
        self.id = given if 0 < len(given) <= MAX_REQUEST_ID else uuid.uuid4().hex
        self._headers = {name: request.headers[name] for name in PASSED_TO_INSTANCES if name in request.headers} | {
            "Content-Type": "application/json"
        }

    async def run(self) -> web.StreamResponse:
        """Serve it to its end. Raises what aiohttp raises where the client is gone."""
        parts, asked = self._parts, self._asked
        self._task = asyncio.current_task()
        prompt = await parts.knowing.prompt(asked, self._headers, parts.keeper.fleet) if self._keys else None
        if prompt is None:
            # Its text has other keys than its tokens: where engines are listened to, those would be of no use.
            keys = self._keys and not parts.knowing.listens
            prompt = measured(asked.body, parts.options.policy.block_tokens, keys=keys)
        user = asked.body.get("user")
        tenant = user[:MAX_REQUEST_ID] if isinstance(user, str) else ""
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
        self._fate = fate
        self._cancel()

    def end(self) -> None:
        """The proxy ends."""
        self._ending = True
        self._cancel()

    def look(self, now: float, idle: float, client: float) -> None:
        """See whether the instance or the client has been silent for too long."""
        if self._waits_on is not None and now - self._since >= idle:
            self._cancel()
        elif self._sends_since is not None and now - self._sends_since >= client:
            log.info("request %s: its client took nothing for %g s, and is cut off", self.id, client)
            if self._request.transport is not None:
                self._request.transport.abort()

    def _cancel(self) -> None:
        if self._waits_on is not None and not self._cut and self._task is not None:
            self._cut = True
            self._task.cancel()

    def _wait_on(self, member: Member) -> None:
        """From here on others may cancel it."""
        if self._ending or self._fate is not None:
            raise asyncio.CancelledError
        self._waits_on = member
        self._since = self._parts.clock()

    # Its way

    async def _ride(self, fate: Fate) -> web.StreamResponse:
        while True:
            if isinstance(fate, Reject):
                return await self._rejected(fate)
            if isinstance(fate, Lost):
                return await self._lost()
            self._fate = None
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
                self._waits_on = None
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
        ours = self._cut or self._ending or self._fate is not None
        member, self._waits_on = self._waits_on, None
        if self._cut:
            self._cut = False
            uncancel = getattr(self._task, "uncancel", None)  # of Python 3.11 on
            if uncancel is not None:
                uncancel()
        if not ours or self._request.transport is None:
            raise asyncio.CancelledError
        if self._ending:
            return Lost(self._number)
        if self._fate is not None:
            return self._fate
        assert member is not None  # noqa: S101 - only who waits is cut
        idle = self._parts.options.idle_seconds
        return self._after(InstanceFailed(member, f"nothing came for {idle:g} s"))

    def _after(self, failure: InstanceFailed) -> Fate:
        """An instance failed: where it goes on."""
        self._failure = failure
        self._parts.keeper.failed(failure)
        fate = self._fate or self._parts.dispatcher.failed(self._number, failure.member.name, busy=failure.busy)
        if isinstance(fate, Place):
            log.warning("request %s is begun anew: %s", self.id, failure)
            self._parts.stats.retries[failure.member.kind.value] += 1
        return fate

    async def _attempt(self, place: Place) -> web.StreamResponse:
        parts, asked, options = self._parts, self._asked, self._parts.options
        prefill = parts.keeper.fleet.members[place.prefill]
        self._attempts += 1
        headers = {**self._headers, REQUEST_ID: self.id if self._attempts == 1 else f"{self.id}-{self._attempts}"}
        if asked.alone:
            return await self._relay(prefill, asked.raw, headers, alone=True)
        if not options.p2p:
            said = await self._prefill(prefill, prefill_body(asked, None), headers)
            if isinstance(said, Answer):
                return self._answer(said)
            return await self._relay(self._decoder(prefill), asked.raw, headers)
        rank = prefill.next_rank()
        transfer = f"xfer-{uuid.uuid4().hex}"
        its = headers if rank is None or len(prefill.ranks) == 1 else {**headers, RANK: rank[0]}
        said = await self._prefill(prefill, prefill_body(asked, prefill_transfer(transfer)), its)
        if isinstance(said, Answer):
            return self._answer(said)
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
        raise _Moved(self._fate or fate or Lost(self._number))

    async def _prefill(self, member: Member, body: bytes, headers: Mapping[str, str]) -> Answer | dict[str, Any]:
        """Have the prompt computed: what the instance says, or what the client must be told."""
        began = self._parts.clock()
        member.running += 1
        try:
            answer = await self._post(member, body, headers)
            try:
                whole = await self._read(member, answer)
                if answer.status != 200:
                    return self._refusal(member, answer, whole)
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
            answer = await self._post(member, body, headers)
            try:
                if answer.status != 200:
                    return self._answer(self._refusal(member, answer, await self._read(member, answer)))
                pass_on = self._stream if self._asked.stream else self._whole
                return await pass_on(member, answer, alone)
            finally:
                if not self._complete:
                    answer.close()
        finally:
            member.running -= 1

    async def _post(self, member: Member, body: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        self._wait_on(member)
        answer = await self._parts.upstream.post(member, self._asked.path, body, headers)
        self._waits_on = None
        return answer

    async def _read(self, member: Member, answer: aiohttp.ClientResponse) -> bytes:
        self._wait_on(member)
        try:
            whole = await read(answer, MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise broken(member, error) from None
        self._waits_on = None
        if whole is None:
            raise InstanceFailed(member, f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
        return whole

    def _refusal(self, member: Member, answer: aiohttp.ClientResponse, body: bytes) -> Answer:
        """An answer that is an error: the client's to have. Raises ``InstanceFailed`` where another may do better."""
        said = failures.as_error(answer.status, body, passed_on(answer))
        if answer.status in ELSEWHERE:
            raise InstanceFailed(member, f"it answers with status {answer.status}", answer=said)
        if answer.status < 400:
            raise InstanceFailed(member, f"it answers with status {answer.status}")
        return said

    async def _whole(self, member: Member, answer: aiohttp.ClientResponse, alone: bool) -> web.StreamResponse:  # noqa: FBT001
        whole = await self._read(member, answer)
        said = failures.parsed(whole)
        if said is None:
            raise InstanceFailed(member, "its answer is no JSON")
        self._first(member, alone=alone)
        usage = said.get("usage")
        count = usage.get("completion_tokens") if isinstance(usage, dict) else None
        self._output = count if isinstance(count, int) else 1
        self._done(member)
        return self._answer(Answer(200, whole, passed_on(answer)))

    async def _stream(self, member: Member, answer: aiohttp.ClientResponse, alone: bool) -> web.StreamResponse:  # noqa: FBT001
        if answer.content_type != EVENT_STREAM:
            raise InstanceFailed(member, f"it answers a stream with {answer.content_type}")
        parts, events, held = self._parts, Events(), b""
        while (whole := await self._more(member, answer, events)) is not None:
            if not whole:
                continue
            if self._response is None:
                held += whole
                says, problem = look(held)
                if says is Says.NOTHING and len(held) <= MAX_FIRST_BYTES:
                    continue
                if says is Says.ERROR and problem is not None:
                    return self._answer(self._said_error(member, problem))
                if says is not Says.TOKEN:
                    raise InstanceFailed(member, "what it streams are no events of the API")
                self._first(member, alone=alone)
                whole = held
            came = count(whole)
            self._output += came
            parts.dispatcher.tokens(self._number, came, held=self._held)  # from here on it is not begun anew
            if self._response is None:
                await self._begin(answer)
            if events.done:
                self._done(member)
                parts.upstream.read_end(answer)
                return await self._send(whole, last=True)
            await self._send(whole)
        raise InstanceFailed(member, "its stream ended before it was done")

    async def _more(self, member: Member, answer: aiohttp.ClientResponse, events: Events) -> bytes | None:
        """The events that are whole by now; None at the end."""
        self._wait_on(member)
        try:
            data = await answer.content.readany()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise broken(member, error) from None
        self._waits_on = None
        try:
            return events.feed(data) if data else None
        except BadStream as error:
            raise InstanceFailed(member, str(error)) from None

    def _said_error(self, member: Member, problem: dict[str, Any]) -> Answer:
        """A stream begins with an error: what status it would have had."""
        error = problem["error"]
        code = error.get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else 500
        text = error.get("message") if isinstance(error, dict) else error
        said = Answer(status, failures.dumped(problem), {"Content-Type": "application/json"})
        if status in ELSEWHERE:
            raise InstanceFailed(member, f"its stream is an error: {str(text)[: failures.MAX_DETAIL]}", answer=said)
        return said

    # What the client gets

    def _first(self, member: Member, *, alone: bool) -> None:
        """The first token is there."""
        if alone:
            self._parts.dispatcher.prefilled(self._number, member.name)
        self._needs(None)
        self._parts.dispatcher.begun(self._number)
        self._parts.stats.first.observe(self._parts.clock() - self._began)

    def _done(self, member: Member) -> None:
        """The answer is whole."""
        member.served += 1
        self._complete = True

    async def _begin(self, answer: aiohttp.ClientResponse) -> None:
        headers = passed_on(answer)
        headers.setdefault(REQUEST_ID, self.id)
        self._response = web.StreamResponse(headers=headers)
        await self._response.prepare(self._request)

    async def _send(self, data: bytes, *, last: bool = False) -> web.StreamResponse:
        assert self._response is not None  # noqa: S101 - it has begun
        began = self._sends_since = self._parts.clock()
        await (self._response.write_eof(data) if last else self._response.write(data))
        self._sends_since = None
        self._held = self._parts.clock() - began > HELD_SECONDS
        return self._response

    def _answer(self, answer: Answer) -> web.Response:
        headers = {REQUEST_ID: self.id, **answer.headers}
        return web.Response(status=answer.status, body=answer.body, headers=headers)

    async def _rejected(self, fate: Reject) -> web.StreamResponse:
        self._parts.stats.refused[fate.reason.value] += 1
        if fate.reason is not Reason.NO_INSTANCE:
            what = "the first token" if fate.reason is Reason.TTFT else "each token"
            return await self._over(failures.too_late(fate.reason.value, what, fate.predicted, fate.retry_after))
        if self._failure is not None:
            return await self._lost()
        lacking = [name for name, kind in KINDS.items() if not self._parts.keeper.fleet.of(kind)]
        retry = min(MOST_RETRY_SECONDS, self._parts.keeper.next_probe())
        return await self._over(failures.no_instance(lacking, retry))

    async def _lost(self) -> web.StreamResponse:
        """Instances failed it for good."""
        self._parts.stats.lost += 1
        failure = self._failure
        if self._ending:
            return await self._over(failures.ending())
        log.warning("request %s is lost: %s", self.id, failure or "its instance is gone")
        if failure is None:
            return await self._over(failures.instance_failed())
        said = failure.answer or failures.instance_failed(failure.member.kind.value, failure.detail)
        return await self._over(said)

    async def _over(self, answer: Answer) -> web.StreamResponse:
        """An error: as the answer, or as the last event of a stream that has begun."""
        if self._response is None:
            return self._answer(answer)
        return await self._send(failures.last_event(answer), last=True)
