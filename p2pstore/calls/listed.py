"""Objects that come page by page to whoever iterates."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from engine import arguments
from p2pstore.node import Node


def listed(
    call: Callable[[Coroutine[Any, Any, dict[str, Any]]], dict[str, Any]], node: Callable[[], Node], prefix: str
) -> Iterator[dict[str, Any]]:
    """See ``P2PStore.list``. ``call`` runs a coroutine on the loop of ``node``, which raises where it is closed."""
    node()
    wanted = arguments.text(prefix, "the prefix")

    def pages() -> Iterator[dict[str, Any]]:
        after: str | None = ""
        while after is not None:
            page = call(node().listing(wanted, limit=0, after=after))
            for entry in page["objects"]:
                node()
                yield entry
            after = page["next"]

    return pages()
