"""What the pool holds, by the keys that its master lists, in the blocks that the policy knows. Pure.

An engine's key in the pool ends with the hash of its block, in hexadecimal digits. Which of the policy's blocks that is
the engines' own events say (``EngineBlocks.key_of``): so a block that no engine here has spoken of is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from p2pstore.serving.events import Block, Removed, Stored

KeyOf = Callable[[Hashable], Block | None]


class PoolBlocks:
    """The blocks of the pool, which is an instance of kind ``STORE`` to the policy."""

    def __init__(self, instance: str, key_of: KeyOf) -> None:
        self.instance = instance
        self._key_of = key_of
        self._held: set[Block] = set()

    def listed(self, keys: Iterable[str]) -> list[Stored | Removed]:
        """What changed, now that these are all the keys of the pool."""
        found: set[Block] = set()
        for key in keys:
            block = self._block(key)
            if block is not None:
                found.add(block)
        new, gone = found - self._held, self._held - found
        self._held = found
        said: list[Stored | Removed] = [Stored(self.instance, list(new))] if new else []
        return [*said, Removed(self.instance, list(gone))] if gone else said

    def _block(self, key: str) -> Block | None:
        digits = key.rpartition("@")[2]
        try:
            found = self._key_of(bytes.fromhex(digits))
            if found is None:  # engines may be told to shorten what they publish
                found = self._key_of(int(digits[-16:], 16))
        except ValueError:
            return None
        return found
