"""The calls about what lies on a node: a part of ``AgentClient``."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from p2pstore.agent.batches import joined
from p2pstore.agent.socket_calls import SocketCalls

DELETE_TIMEOUT = 120.0
"""Seconds for the files of what somebody named to go; other nodes are asked before."""

Event = dict[str, Any]


class CacheCalls:
    """See ``AgentClient``."""

    def __init__(self, calls: SocketCalls) -> None:
        self._calls = calls

    def unregister_and_delete(self, name: str, *, last_copies: bool) -> dict[str, Any]:
        """``POST /v1/unregister-delete``: and delete the files, if this agent wrote all of them."""
        body = {"name": name, "last_copies": last_copies}
        return self._calls.answer("POST", "/v1/unregister-delete", body, timeout=DELETE_TIMEOUT)

    def cache(self) -> dict[str, Any]:
        """``GET /v1/cache``: every copy that lies on this node, and the quota."""
        return self._calls.answer("GET", "/v1/cache")

    def pin(self, names: Sequence[str], *, pinned: bool) -> dict[str, Any]:
        """``POST /v1/cache-pin``: of copies by names of objects or absolute paths, whether they are to stay."""
        return self._calls.answer("POST", "/v1/cache-pin", {"names": list(names), "pinned": pinned})

    def prune(
        self,
        *,
        older_than: float = 0.0,
        larger_than: int = 0,
        keep: Sequence[str] = (),
        only: Sequence[tuple[str, str, str]] | None = None,
        dry_run: bool = False,
        last_copies: bool = False,
    ) -> Iterator[Event]:
        """``POST /v1/cache-prune``: delete what fits, and of that ``only`` those of a name, a place and a manifest.

        Of many that are named, as many calls as it takes: each is bounded.
        """
        how = {"older_than": older_than, "larger_than": larger_than, "keep": list(keep)}
        how |= {"dry_run": dry_run, "last_copies": last_copies}

        def call(batch: list[tuple[str, ...]] | None) -> Generator[Event, None, None]:
            return self._calls.events("/v1/cache-prune", {**how, "only": batch})

        if only is None:
            return call(None)
        return joined(only, call, {"event": "result", "deleted": [], "kept": [], "bytes": 0, "dry_run": dry_run})
