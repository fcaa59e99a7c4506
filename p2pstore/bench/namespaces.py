"""Hosts on one machine: network namespaces, each with a network card of limited rate, joined by a bridge.

::

    hub: bridge br0 ── 198.18.0.1/22, without a limit (etcd)
           │
           ├─ p0 ═ veth ═ eth0 198.18.1.0 in host 0     both ends limited by tbf: eth0 what the host sends,
           ├─ p1 ═ veth ═ eth0 198.18.1.1 in host 1     its port of the bridge what it receives
           ...

The namespaces have no way out of the machine; 198.18.0.0/15 is for benchmarks (RFC 2544). Their names hold the pid of
the process that made them, so that runs do not clash, and one finds what another left that was killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine import signals
from p2pstore.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Self

PREFIX = "mooncake"
MAX_HOSTS = 512
"""Of 1,022 addresses on the bridge."""

BURST_SECONDS = 0.02
MIN_BURST = 64 * 1024
"""Bytes that may pass a limit at once: a segment of the kernel's offloads must fit, and little more should."""

QUEUE_MILLISECONDS = 60
"""How long a packet waits for its turn before it is dropped."""

CONGESTION = "reno"
SEGMENTS = 32
"""How the hosts' TCP sends: without pacing, whose timers a whole cluster on two cores has no time for, and in bundles
of so many packets, as a card with segmentation offload takes them."""

COMMAND_SECONDS = 20.0

_NAME = re.compile(rf"{PREFIX}-(\d+)-\w+")


class Namespaces:
    """A hub and hosts 0 to ``len(rates)`` - 1, from ``up`` to ``down``; use it as a context manager."""

    def __init__(self, rates: Sequence[float]) -> None:
        """``rates``: of each host's card, both ways, in bytes a second."""
        if not 0 < len(rates) <= MAX_HOSTS:
            raise UsageError(detail=f"between 1 and {MAX_HOSTS} namespaces can be made, not {len(rates)}")
        self._rates = rates
        self._tag = f"{PREFIX}-{os.getpid()}"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def hub(self) -> str:
        """The namespace of the bridge."""
        return f"{self._tag}-hub"

    def host(self, number: int) -> str:
        """The namespace of a host."""
        return f"{self._tag}-{number}"

    @property
    def hub_address(self) -> str:
        """Where the hub is reached from every host."""
        return "198.18.0.1"

    def address(self, number: int) -> str:
        """Where a host is reached."""
        return f"198.18.{1 + number // 256}.{number % 256}"

    def up(self) -> None:
        """Make everything, or nothing. Raises ``UsageError`` without root, the tools, or the kernel's support."""
        if os.geteuid() != 0:
            raise UsageError(detail="namespaces with limited network cards need root; without --rate it needs none")
        for tool in ("ip", "tc"):
            if shutil.which(tool) is None:
                raise UsageError(detail=f"namespaces need '{tool}' of iproute2")
        sweep()
        try:
            self._make_hub()
            for number, rate in enumerate(self._rates):
                self._make_host(number, rate)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Remove what there is of it. A Ctrl-C waits until it is done."""
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, set(signals.ending()))
        try:
            for name in _names():
                if name.startswith(f"{self._tag}-"):
                    _remove(name)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)

    def command(self, namespace: str, arguments: Sequence[str]) -> list[str]:
        """The command line that runs another one inside a namespace."""
        return ["ip", "netns", "exec", namespace, *arguments]

    def _make_hub(self) -> None:
        hub = self.hub
        _run("ip", "netns", "add", hub)
        _run("ip", "-n", hub, "link", "set", "lo", "up")
        _run("ip", "-n", hub, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", hub, "address", "add", f"{self.hub_address}/22", "dev", "br0")
        _run("ip", "-n", hub, "link", "set", "br0", "up")

    def _make_host(self, number: int, rate: float) -> None:
        hub, host, port = self.hub, self.host(number), f"p{number}"
        _run("ip", "netns", "add", host)
        _run("ip", "-n", host, "link", "set", "lo", "up")
        _run("ip", "-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host)
        _run("ip", "-n", hub, "link", "set", port, "master", "br0", "up")
        _run("ip", "-n", host, "address", "add", f"{self.address(number)}/22", "dev", "eth0")
        _run("ip", "-n", host, "link", "set", "eth0", "up")
        for setting, value in (("tcp_congestion_control", CONGESTION), ("tcp_min_tso_segs", str(SEGMENTS))):
            write = f"echo {value} > /proc/sys/net/ipv4/{setting}"
            _run("ip", "netns", "exec", host, "sh", "-c", write)
        limit = ("rate", f"{rate * 8:.0f}bit", "burst", f"{max(MIN_BURST, rate * BURST_SECONDS):.0f}")
        for namespace, device in ((host, "eth0"), (hub, port)):
            root = ("tc", "-n", namespace, "qdisc", "add", "dev", device, "root")
            _run(*root, "tbf", *limit, "latency", f"{QUEUE_MILLISECONDS}ms")


def sweep() -> None:
    """Remove the namespaces, and end the processes in them, of runs that were killed before they could."""
    for name in _names():
        match = _NAME.fullmatch(name)
        if match and not Path(f"/proc/{match[1]}").exists():
            _remove(name)


def _names() -> list[str]:
    listed = _run("ip", "netns", "list")
    return [line.split()[0] for line in listed.splitlines() if line.strip()]


def _remove(name: str) -> None:
    """End what runs in a namespace, which would keep it alive, and delete it."""
    with contextlib.suppress(UsageError):  # it may be gone meanwhile
        for pid in _run("ip", "netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _run("ip", "netns", "delete", name)


def _run(*command: str) -> str:
    """Run a command; what it prints. Raises ``UsageError`` with its complaint."""
    environment: Mapping[str, str] = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, timeout=COMMAND_SECONDS
    )
    if done.returncode:
        raise UsageError(detail=f"'{' '.join(command)}' failed: {done.stderr.strip() or done.returncode}")
    return done.stdout
