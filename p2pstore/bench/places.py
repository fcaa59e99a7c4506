"""Where the agents of a broadcast run: all on loopback, or each in a namespace of its own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import Protocol

from p2pstore.bench.namespaces import Namespaces


class Places(Protocol):
    """Addresses for a hub and for numbered hosts, and how to run a command at each."""

    @property
    def hub_address(self) -> str:
        """Where every host reaches the hub."""

    def listen(self, number: int) -> str | None:
        """The address for a host's agent to listen on; None for its default."""

    def at_hub(self, arguments: Sequence[str]) -> list[str]:
        """A command line that runs another one at the hub."""

    def at(self, number: int, arguments: Sequence[str]) -> list[str]:
        """A command line that runs another one at a host."""

    def ports(self) -> tuple[int, int]:
        """Two free ports at the hub."""


class Loopback:
    """Everybody on 127.0.0.1."""

    hub_address = "127.0.0.1"

    def listen(self, number: int) -> str | None:  # noqa: ARG002 - see Places
        """See ``Places``."""
        return None

    def at_hub(self, arguments: Sequence[str]) -> list[str]:
        """See ``Places``."""
        return list(arguments)

    def at(self, number: int, arguments: Sequence[str]) -> list[str]:  # noqa: ARG002 - see Places
        """See ``Places``."""
        return list(arguments)

    def ports(self) -> tuple[int, int]:
        """See ``Places``."""
        with contextlib.ExitStack() as stack:
            probes = [stack.enter_context(socket.socket()) for _ in range(2)]
            for probe in probes:
                probe.bind((self.hub_address, 0))
            return int(probes[0].getsockname()[1]), int(probes[1].getsockname()[1])


class Limited(Namespaces):
    """Each in a namespace; the hub's has no limit."""

    def listen(self, number: int) -> str | None:
        """See ``Places``."""
        return self.address(number)

    def at_hub(self, arguments: Sequence[str]) -> list[str]:
        """See ``Places``."""
        return self.command(self.hub, arguments)

    def at(self, number: int, arguments: Sequence[str]) -> list[str]:
        """See ``Places``."""
        return self.command(self.host(number), arguments)

    def ports(self) -> tuple[int, int]:
        """See ``Places``. Nobody else is there."""
        return 2379, 2380
