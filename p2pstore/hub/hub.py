"""What an agent needs for repositories, whoever asks: a program over HTTP, or a command that registers one."""

from __future__ import annotations

from p2pstore.cluster.claims import Claims
from p2pstore.holding.parts import Parts
from p2pstore.hub.copies import Copies
from p2pstore.hub.listings import Listings
from p2pstore.hub.repos import Repos
from p2pstore.hub.upstream import Upstream
from p2pstore.supervisor import Supervisor


class Hub:
    """The parts, made once; close it in the end. Nothing is opened before it is used."""

    def __init__(
        self, parts: Parts, supervisor: Supervisor, *, transport: str = "auto", upstream: str | None = None
    ) -> None:
        """``upstream`` is the URL of the hub that is read, if any; ``transport`` is as of ``Copies``."""
        self.parts = parts
        self.claims = Claims(parts.registry, supervisor)
        self.copies = Copies(parts, supervisor, transport)
        self.repos = Repos(parts, self.copies)
        self.upstream = Upstream(upstream) if upstream else None
        self.listings = Listings(parts, self.copies, self.repos, self.upstream)

    async def close(self) -> None:
        """End what is under way; what came so far stays."""
        await self.listings.close()
        await self.repos.close()
        await self.copies.close()
        if self.upstream is not None:
            await self.upstream.close()
