"""What prefill instances and the pool hold, by their own word: vLLM's KV events, and the keys that the master lists.

Engines speak of tokens. So once one of them is listened to, prompts are taken apart by an instance's tokenizer
(``POST /tokenize``) before they are placed, and the keys of blocks are those of tokens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Mapping

from p2pstore.serving.events import Block, InstanceUp, Kind, Removed, Stored
from p2pstore.serving.knowledge.engine_blocks import EngineBlocks
from p2pstore.serving.knowledge.feed import Feed
from p2pstore.serving.knowledge.pool_blocks import PoolBlocks
from p2pstore.serving.knowledge.pool_feed import PoolFeed
from p2pstore.serving.knowledge.vllm_events import EngineEvent
from p2pstore.serving.proxy.dispatch import Dispatcher
from p2pstore.serving.proxy.fleet import Fleet, Member
from p2pstore.serving.proxy.prompts import Prompt, of_tokens, token_key, tokenize_body
from p2pstore.serving.proxy.requests import Asked
from p2pstore.serving.proxy.upstream import Upstream
from p2pstore.supervisor import Supervisor

OWNER = "proxy"

POOL = "store"
"""The pool's name for the policy."""

LOOK_SECONDS = 0.5
"""Between looks at whether an instance was removed."""

log = logging.getLogger(__name__)


class Knowing:
    """Listens for a proxy."""

    def __init__(self, dispatcher: Dispatcher, upstream: Upstream, supervisor: Supervisor, block_tokens: int) -> None:
        self._dispatcher, self._upstream, self._supervisor = dispatcher, upstream, supervisor
        self._block_tokens = block_tokens
        self._engines: dict[str, EngineBlocks] = {}
        self._turn = 0

    @property
    def listens(self) -> bool:
        """Whether an engine is listened to."""
        return bool(self._engines)

    def listen(self, member: Member) -> None:
        """Listen to a prefill instance, where it says something. Raises ``UsageError`` without the extra ``events``."""
        endpoint = member.place.events
        if endpoint is None or member.kind is not Kind.PREFILL:
            return
        Feed(endpoint, lambda _: None, replay=member.place.replay)  # what it needs is missed now, and not later
        self._engines[member.name] = EngineBlocks(member.name, self._block_tokens, token_key)
        self._dispatcher.others_tell(member.name)
        self._supervisor.start("KV events", OWNER, lambda: self._read(member, endpoint))

    def listen_to_pool(self, admin: str) -> None:
        """Ask a master's metrics port for the pool's keys. Raises ``UsageError`` for what is no address."""
        feed = PoolFeed(admin, PoolBlocks(POOL, self._key_of), self._tell)
        self._dispatcher.instance(InstanceUp(POOL, Kind.STORE))
        self._supervisor.start("pool's keys", OWNER, feed.run)

    def up(self, member: Member) -> None:
        """An instance takes requests from now on: of what it held before the policy knows nothing."""
        blocks = self._engines.get(member.name)
        if blocks is not None and blocks.held:
            self._dispatcher.told(Stored(member.name, tuple(blocks.held)))

    async def prompt(self, asked: Asked, headers: Mapping[str, str], fleet: Fleet) -> Prompt | None:
        """A prompt in tokens; None where nobody is listened to, or nobody took it apart in time."""
        if not self._engines:
            return None
        body = tokenize_body(asked)
        members = fleet.of(Kind.PREFILL)
        if body is None or not members:
            return None
        if not isinstance(body, bytes):
            return of_tokens(body, self._block_tokens, asked.body)
        self._turn += 1
        tokens = await self._upstream.tokens(members[self._turn % len(members)], body, headers)
        return None if tokens is None else of_tokens(tokens, self._block_tokens, asked.body)

    async def _read(self, member: Member, endpoint: str) -> None:
        blocks = self._engines[member.name]
        self._tell(blocks.clear())

        def told(events: list[EngineEvent]) -> None:
            for event in events:
                self._tell(blocks.handle(event))

        task = asyncio.ensure_future(Feed(endpoint, told, replay=member.place.replay).run())
        try:
            while not member.removed:
                done, _ = await asyncio.wait({task}, timeout=LOOK_SECONDS)
                for each in done:
                    each.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._engines.get(member.name) is blocks:  # and not another's, that was added in its place
            del self._engines[member.name]
            self._dispatcher.nobody_tells(member.name)

    def _tell(self, events: list[Stored | Removed]) -> None:
        for event in events:
            self._dispatcher.told(event)

    def _key_of(self, last: Hashable) -> Block | None:
        found = (blocks.key_of(last) for blocks in self._engines.values())
        return next((key for key in found if key is not None), None)
