"""Versions of an object that come one after the other to whoever iterates.

Between two of them nothing waits and nothing is kept but the digest of the last: each is a call of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

from engine import arguments
from p2pstore.calls.given import notes_only
from p2pstore.cluster.records import ObjectRecord
from p2pstore.cluster.watching import Versions, described, next_version
from p2pstore.metadata.store import Snapshot
from p2pstore.node import Node
from p2pstore.objects.reference import parse_reference

T = TypeVar("T")


class Call(Protocol):
    """Runs a coroutine on the node's loop, ``timeout`` seconds at most."""

    def __call__(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Its result; raises ``TimeoutError``."""


def watched(
    call: Call,
    node: Callable[[], Node],
    name: str,
    *,
    initial: bool,
    timeout: float | None,
    note: Callable[[str], None] | None,
) -> Iterator[dict[str, Any]]:
    """See ``P2PStore.watch``."""
    tell = notes_only(note)
    wanted = parse_reference(arguments.text(name, "the name"))
    versions = Versions(wanted)
    if timeout is not None:
        timeout = arguments.seconds(timeout, "the timeout")
    if not initial:
        call(_pass_over(node(), versions))

    def wait() -> Iterator[dict[str, Any]]:
        while True:
            here = node()
            try:
                found: tuple[ObjectRecord, str] = call(
                    next_version(here.registry.store, here.membership, versions, tell), timeout
                )
            except TimeoutError:
                return
            yield described(wanted, *found)

    return wait()


async def _pass_over(node: Node, versions: Versions) -> None:
    """Note the version that there is as the last that was seen."""
    item = await node.registry.store.get(versions.key)
    versions.new_in(Snapshot(() if item is None else (item,), 0))
