"""What one engine holds, by its own events, in the blocks that the policy knows. Pure.

The policy's blocks have keys and a length of their own: a whole number of the engine's. One is held while the engine
holds all of its own blocks that make it up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from p2pstore.serving.events import Block, Removed, Stored
from p2pstore.serving.knowledge.vllm_events import BlocksRemoved, BlocksStored, Cleared, EngineEvent

MAX_NODES = 2_000_000
"""Blocks of an engine that are remembered. With more those go that it has not any more, which it may store again; if
that is not enough, it is begun anew, as though the engine had none."""

Key = Callable[[Block | None, Sequence[int]], Block]
"""The policy's key of a block, from that of the one before it (None: it is the first) and its tokens."""


@dataclass(slots=True)
class _Node:
    """A block of the engine's."""

    part: tuple[Hashable, ...]
    """Hashes from the beginning of the policy's block to this one."""
    tokens: tuple[int, ...]
    """The tokens of those."""
    before: Block | None
    """The policy's block before."""
    media: set[str] = field(default_factory=set)
    """Where the engine has it; nowhere, it is remembered only."""
    parts_of: list[Block] = field(default_factory=list)
    """The policy's blocks that it is a part of."""


class EngineBlocks:
    """The blocks of one engine."""

    def __init__(self, instance: str, block_tokens: int, key: Key) -> None:
        self.instance = instance
        self.unknown = 0
        """Blocks that were stored behind one of which nothing is known: events were missed."""
        self._block_tokens = block_tokens
        self._key = key
        self._nodes: dict[Hashable, _Node] = {}
        self._made: dict[Block, tuple[Hashable, ...]] = {}
        self._held: set[Block] = set()
        self._by_hash: dict[Hashable, Block] = {}

    @property
    def held(self) -> frozenset[Block]:
        """The policy's blocks that the engine holds."""
        return frozenset(self._held)

    def key_of(self, last: Hashable) -> Block | None:
        """The policy's block that ends with an engine's block of this hash; None where none is known to."""
        return self._by_hash.get(last)

    def handle(self, event: EngineEvent) -> list[Stored | Removed]:
        """What the policy is to be told."""
        if isinstance(event, Cleared):
            return self.clear()
        if event.group:
            return []  # all groups of layers have the same prefixes; the first says which
        if isinstance(event, BlocksRemoved):
            return self._said(Removed, self._removed(event))
        if not event.plain or self._block_tokens % event.size:
            return []
        begun: list[Stored | Removed] = []
        if len(self._nodes) + len(event.hashes) > MAX_NODES:
            self._forget_removed()
            if len(self._nodes) + len(event.hashes) > MAX_NODES:
                begun = self.clear()
        return begun + self._said(Stored, self._stored(event))

    def clear(self) -> list[Stored | Removed]:
        """It holds nothing, or nobody knows what it holds."""
        gone = list(self._held)
        self._held.clear()
        self._nodes.clear()
        self._made.clear()
        self._by_hash.clear()
        return self._said(Removed, gone)

    def _forget_removed(self) -> None:
        self._nodes = {each: node for each, node in self._nodes.items() if node.media}
        gone = {block for block, parts in self._made.items() if not self._nodes.keys() >= set(parts)}
        self._made = {block: parts for block, parts in self._made.items() if block not in gone}
        self._by_hash = {each: block for each, block in self._by_hash.items() if block not in gone}
        for node in self._nodes.values():
            node.parts_of = [block for block in node.parts_of if block not in gone]

    def _said(self, kind: type[Stored | Removed], blocks: list[Block]) -> list[Stored | Removed]:
        return [kind(self.instance, blocks)] if blocks else []

    def _stored(self, event: BlocksStored) -> list[Block]:
        new: list[Block] = []
        parent = event.parent
        for number, each in enumerate(event.hashes):
            node = self._nodes.get(each)
            if node is None:
                tokens = tuple(event.tokens[number * event.size : (number + 1) * event.size])
                node = self._node(each, parent, tokens)
                if node is None:
                    self.unknown += len(event.hashes) - number
                    break
            node.media.add(event.medium)
            for block in node.parts_of:
                if block not in self._held and all(self._nodes[one].media for one in self._made[block]):
                    self._held.add(block)
                    new.append(block)
            parent = each
        return new

    def _node(self, hash_: Hashable, parent: Hashable | None, tokens: tuple[int, ...]) -> _Node | None:
        if parent is None:
            node = _Node((hash_,), tokens, None)
        else:
            above = self._nodes.get(parent)
            if above is None:
                return None
            if parent in self._by_hash:
                node = _Node((hash_,), tokens, self._by_hash[parent])
            elif len(above.tokens) == self._block_tokens or not self._nodes.keys() >= set(above.part):
                return None  # the beginning of its block was forgotten
            else:
                node = _Node((*above.part, hash_), above.tokens + tokens, above.before)
        self._nodes[hash_] = node
        if len(node.tokens) == self._block_tokens:
            block = self._key(node.before, node.tokens)
            self._by_hash[hash_] = block
            self._made[block] = node.part
            for each in node.part:
                self._nodes[each].parts_of.append(block)
        return node

    def _removed(self, event: BlocksRemoved) -> list[Block]:
        gone: list[Block] = []
        for each in event.hashes:
            node = self._nodes.get(each)
            if node is None:
                continue
            node.media.discard(event.medium)
            if node.media:
                continue
            for block in node.parts_of:
                if block in self._held:
                    self._held.discard(block)
                    gone.append(block)
        return gone
