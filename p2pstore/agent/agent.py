"""The agent: one process a home, which holds a node and serves the command line on a Unix socket.

``python -m p2pstore.agent`` is what ``mooncake node start`` runs in the background; ``mooncake node run`` runs the same
in the foreground. SIGTERM, SIGINT and SIGHUP end it cleanly (the last not under nohup): calls and jobs end (partial
gets keep their journals), the lease is revoked, and an etcd of its own is stopped. After a SIGKILL the next start
adopts that etcd, and serves the catalog.
An agent that cannot go on, since one of its tasks does nothing but fail, ends in the same way, but with a status of 1;
its log says why, and so do commands until another is started.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import socket
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine import signals
from engine.config.settings import EngineSettings
from engine.files.open_limit import allow_many_files
from engine.files.refusals import cannot
from engine.files.system import system
from engine.files.writing import replace_file
from engine.net import addresses, sockets
from engine.net.daemon_pool import DaemonPool
from engine.net.within import within
from p2pstore.agent.agent_server import AgentServer
from p2pstore.agent.embedded_etcd import EmbeddedEtcd
from p2pstore.agent.garbage import Freezer
from p2pstore.agent.home import Home, socket_address
from p2pstore.agent.home_keeper import HomeKeeper
from p2pstore.agent.home_lock import HomeLock, locked
from p2pstore.agent.jobs import Jobs
from p2pstore.agent.log_file import LogFile
from p2pstore.agent.metrics_server import MetricsServer
from p2pstore.agent.options import credentials, node_options
from p2pstore.agent.origin_calls import OriginCalls
from p2pstore.agent.private import let_connect
from p2pstore.agent.readiness import until_ready
from p2pstore.agent.surroundings import surroundings
from p2pstore.endpoint.server import HubServer
from p2pstore.errors import (
    AgentRunning,
    HomeLost,
    HomeUnusable,
    HubListenRefused,
    MooncakeError,
    NodeEnded,
    StorageError,
    UsageError,
    to_wire,
)
from p2pstore.hub.hub import Hub
from p2pstore.hub.ranges import Readers
from p2pstore.metadata.store import MetadataStore
from p2pstore.metadata.urls import open_store
from p2pstore.node import Node
from p2pstore.origins.gathering import Gathering
from p2pstore.pull.get import GetRequest
from p2pstore.pull.run import Emit
from p2pstore.settings.settings import Settings
from p2pstore.supervisor import Supervisor, as_text

log = logging.getLogger("mooncake")

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
"""What ``MOONCAKE_LOG_LEVEL`` may say."""

MAX_THREADS = 64
"""Of those in which the event loop has things done. One that hangs at a dead disk must not keep the others waiting."""

CLOSE_SECONDS = 4.5
"""For a clean end; whatever still hangs is then left to the kernel."""


class Agent:
    """One agent's process: its home's lock, its etcd if it needs one, its node, its API."""

    def __init__(self, home: Home, lock: HomeLock, settings: Settings, *, patience: float | None = 0.0) -> None:
        """``patience`` is how long a start waits for what is not there yet, in seconds; None: as long as it takes."""
        self._home = home
        self._lock = lock
        self._settings = settings
        self._patience = patience
        self._ended = asyncio.Event()
        self._supervisor = Supervisor(self._cannot_go_on)
        self._lost: HomeLost | None = None
        self._etcd: EmbeddedEtcd | None = None
        self._metrics_url: str | None = None
        self._hub: HubServer | None = None
        self._jobs: Jobs | None = None
        self._closing = contextlib.AsyncExitStack()

    async def run(self) -> None:
        """Serve until ``stop`` or a signal.

        Raises ``NodeEnded`` when the node could not go on, and ``HomeLost`` when its home was taken away.
        """
        loop = asyncio.get_running_loop()
        self._supervisor.hear_of_callbacks(loop)
        freezer = Freezer()
        freezer.start()
        self._closing.callback(freezer.stop)
        for number in signals.ending():
            loop.add_signal_handler(number, self.stop)
        try:
            starting = asyncio.ensure_future(self._start())
            ended = asyncio.ensure_future(self._ended.wait())
            await asyncio.wait({starting, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():  # it may wait for a metadata server, and is to end all the same
                starting.cancel()
                await asyncio.wait({starting})
            if not starting.cancelled():
                node = starting.result()
                log.info("node %s serves in %s (pid %d)", node.name, self._home.root, os.getpid())
            await ended
            log.info("ending")
        finally:
            try:
                await within(self._closing.aclose(), CLOSE_SECONDS)
            except asyncio.TimeoutError:
                log.warning("not everything has ended within %g s; the kernel ends the rest", CLOSE_SECONDS)
            log.info("ended")
        if self._lost is not None:
            raise self._lost
        if self._supervisor.fatal is not None:
            raise self._supervisor.fatal

    def stop(self) -> None:
        """Begin a clean end."""
        self._ended.set()

    def _cannot_go_on(self, fatal: NodeEnded) -> None:
        """Leave word in the home before anything ends: whoever finds no agent is to find the reason."""
        try:
            word = {"error": to_wire(fatal), "time": as_text(time.time())}
            replace_file(self._home.end_error, json.dumps(word).encode())
        except OSError as error:
            log.error("%s: %s", self._home.end_error, error.strerror)  # noqa: TRY400 - the log has the reason, too
        self.stop()

    def _home_is_lost(self, lost: HomeLost) -> None:
        """Nobody can reach us any more: leave the cluster and give the ports back."""
        log.error("%s", lost)
        self._lost = lost
        self.stop()

    async def _start(self) -> Node:
        metrics = self._settings.metrics and MetricsServer(self._settings.metrics)
        if metrics:
            self._closing.push_async_callback(metrics.close)
            self._metrics_url = metrics.url
        options = node_options(self._home, self._settings)
        store = await self._store()
        if self._settings.metadata is not None:
            await until_ready(self._home, options, store, self._patience)
        node = await Node.start(options, store, self._supervisor)
        self._closing.push_async_callback(node.close)
        if metrics:
            self._closing.push_async_callback(metrics.close)  # before the node, which it reads
            await metrics.start(node)

        async def get(wanted: GetRequest, emit: Emit) -> dict[str, Any]:
            return asdict(await node.get(wanted, emit))

        jobs = self._jobs = Jobs(self._home.jobs, self._home.root, get)
        await jobs.restore()
        hub = Hub(node.parts, self._supervisor, transport=self._settings.transport, upstream=self._settings.hf_upstream)
        self._closing.push_async_callback(hub.close)
        readers = Readers(node.parts, hub.copies)
        gathering = Gathering(hub)
        server = AgentServer(node, self._status, self.stop, jobs, readers, OriginCalls(gathering, node))
        self._closing.push_async_callback(server.close)
        self._closing.push_async_callback(jobs.close)  # before the server: whoever waits for one hears of its end
        await self._serve_hub(gathering)
        group = self._settings.group
        gid = self._home.share(group) if group else None

        async def listen(path: Path) -> None:
            await server.start(_listen(path, gid))
            self._closing.callback(_unlink, path, os.stat(path).st_ino)

        await listen(self._home.socket)
        with contextlib.suppress(OSError):  # it is for those whose XDG_RUNTIME_DIR is another
            self._lock.moved(self._home.socket)
        keeper = HomeKeeper(self._home, self._lock, listen, self._home_is_lost)
        self._closing.push_async_callback(keeper.end)  # before the socket is removed
        log_file = LogFile(self._home.log, self._settings.log_size, self._note_log)
        self._supervisor.start("log keeper", "agent", log_file.keep)
        self._supervisor.start("home keeper", "agent", keeper.keep)
        return node

    async def _serve_hub(self, gathering: Gathering) -> None:
        """Listen where programs read objects as from the hub, if anywhere.

        Raises ``HubListenRefused``, ``UsageError`` or ``StorageError``.
        """
        settings = self._settings
        if settings.hf_endpoint is None:
            return
        host, port = addresses.parse(settings.hf_endpoint, lowest_port=0)
        if settings.hf_token_file is None and sockets.is_exposed(host):
            raise HubListenRefused(address=settings.hf_endpoint)
        server = HubServer(gathering, settings.hf_token_file, host)
        self._closing.push_async_callback(server.close)
        await server.start(sockets.listen(host, port))
        self._hub = server
        log.info("HF_ENDPOINT=http://%s is this agent", server.address)

    async def _store(self) -> MetadataStore:
        settings = self._settings
        if settings.metadata is None:
            self._etcd = etcd = EmbeddedEtcd(self._home.etcd, self._home.sockets)
            await etcd.start()
            self._closing.push_async_callback(etcd.stop)
            self._supervisor.start("etcd keeper", "agent", lambda: etcd.supervise(self._note_etcd))
            self._closing.push_async_callback(self._supervisor.close)
            return open_store(etcd.url)
        return open_store(settings.metadata, credentials(settings))

    def _note_etcd(self, error: MooncakeError) -> None:
        self._supervisor.note("embedded etcd", "agent", error)

    def _note_log(self, error: OSError) -> None:
        self._supervisor.note("log keeper", "agent", StorageError(path=self._home.log, detail=error.strerror or error))

    def _status(self) -> dict[str, Any]:
        own = self._etcd is not None
        return {
            "pid": os.getpid(),
            "home": str(self._home.root),
            "hf_endpoint": f"http://{self._hub.address}" if self._hub is not None else None,
            "process": surroundings(),
            "jobs": [job.document() for job in self._jobs.running] if self._jobs is not None else [],
            "embedded_etcd": own,
            "metrics": self._metrics_url,
            "etcd_pid": self._etcd.pid if self._etcd is not None else None,
        }


def _listen(path: Path, group: int | None = None) -> socket.socket:
    """The listening Unix socket, for its owner, and a ``group``; one that a killed agent left is replaced.

    We hold the home's lock.
    """
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket_address(path) as address:
            system.bind(sock, address)
        try:
            system.chmod(path, 0o600)
        except OSError as error:
            if not cannot("chmod", error):  # its directory is ours alone
                raise
        if group is not None:
            let_connect(path, group)
        sock.listen(sockets.BACKLOG)
    except HomeUnusable:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        raise StorageError(path=path, detail=error.strerror or error) from None
    return sock


def _unlink(path: Path, inode: int) -> None:
    """Remove our socket, and no other's: the home may be somebody else's by now."""
    with contextlib.suppress(OSError):
        if path.lstat().st_ino == inode:
            path.unlink()


def run(home: Home, settings: Settings, *, verbose: bool = False, patience: float | None = None) -> int:
    """Be the agent of ``home`` until told to end; the exit status. Raises ``MooncakeError`` when it cannot start.

    ``verbose`` logs all that there is, whatever else says how much. For ``patience`` see ``Agent``.
    """
    home.create()
    _log_to_stderr("DEBUG" if verbose else _log_level())
    with locked(home) as lock:
        for word in (home.start_error, home.end_error, home.waiting):
            word.unlink(missing_ok=True)
        allow_many_files()
        gc.freeze()  # what was imported stays: the collector need not go through it again and again
        asyncio.run(_main(home, lock, settings, patience))
    return 0


async def _main(home: Home, lock: HomeLock, settings: Settings, patience: float | None) -> None:
    asyncio.get_running_loop().set_default_executor(DaemonPool("agent", MAX_THREADS))
    await Agent(home, lock, settings, patience=patience).run()


def _log_level() -> str:
    """What the environment says. Raises ``UsageError``."""
    given = os.environ.get("MOONCAKE_LOG_LEVEL", "").strip().upper()
    if given and given not in LOG_LEVELS:
        raise UsageError(detail=f"MOONCAKE_LOG_LEVEL: {given!r} is none of {', '.join(LOG_LEVELS)}")
    return given or EngineSettings.load().log_level or "INFO"


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m p2pstore.agent", description="The agent of one home.")
    for option in ("--home", "--config", "--listen", "--metadata", "--node"):
        parser.add_argument(option)
    parser.add_argument("--insecure", action="store_true", default=None)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--patience", type=float, default=0.0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run as ``python -m p2pstore.agent``. A failure to start is left in the home, for the command that started us."""
    given = _arguments(argv)
    home = Home.resolve(Path(given.home) if given.home else None)
    try:
        flags = {name: getattr(given, name) for name in ("listen", "metadata", "node", "insecure")}
        settings = Settings.load(flags, config=Path(given.config) if given.config else None)
        return run(home, settings, verbose=given.verbose, patience=given.patience)
    except MooncakeError as error:
        log.error("%s", error)  # noqa: TRY400 - an error with a sentence needs no traceback
        if not isinstance(error, (AgentRunning, HomeLost)):
            with contextlib.suppress(OSError):
                replace_file(home.start_error, json.dumps({"error": to_wire(error)}).encode())
        return error.exit_code
