"""Calls to the master, from any thread: a pool of connections, each of which one call uses at a time.

A thread that calls sends and receives by itself. That is twice as quick as to hand calls to one thread that has the
connection, and as many calls are under way as there are threads that wait for one.

Where the master does not answer, calls fail at once, and go on failing at once until ``revive`` has found it again.
Whoever owns this calls that in the background.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence
from typing import Any

from engine.errors import RemoteProtocolError
from engine.net import addresses, sockets
from engine.rpc.calls import write_call
from engine.rpc.codes import Code
from engine.rpc.messages import Kind, ObjectMeta, Ping, Replica, Replicas, ReplicateConfig, Segment, TaskAssignment
from engine.rpc.methods import EXTENSIONS_ASKED, Extension
from p2pstore.kv.client.line import CALL_SECONDS, GENERATION, INTRODUCTION, CallRefused, Line
from p2pstore.kv.errors import MasterUnavailable
from p2pstore.objects.file_system import words

DEFAULT_PORT = 50051
"""Of the master, where the address names none."""

PING_SECONDS = 3.0
"""For the answer to a ping, after which the master is taken for gone."""

LEAVE_SECONDS = 2.0
"""For each word of farewell: a master that does not answer will notice by itself."""

MAX_IDLE = 16
"""Connections that are kept between calls."""

log = logging.getLogger(__name__)


class Master:
    """The master as one client calls it. Thread-safe."""

    def __init__(self, address: str, *, client: bytes, tenant: str) -> None:
        """Nothing is connected yet. Raises ``UsageError`` for what is no ``host:port``."""
        self.address = address
        self.client = client
        self.tenant = tenant
        self._host, self._port = addresses.given(address, DEFAULT_PORT)
        # A put of nothing has another form in each release, and names the client. A master that serves several, as ours
        # does, else has to guess which one a connection is of that only asks for keys.
        self._introduction = write_call(INTRODUCTION, GENERATION, "BatchPutEnd", (client, [], int(Kind.ALL), tenant))
        self._lock = threading.Lock()
        self._idle: list[Line] = []
        self._busy: set[Line] = set()
        self._why_not = "it was not connected yet"
        self._closed = False
        self.lost = threading.Event()
        """Set while the master is gone: whoever waits for that calls ``revive``."""
        self.refusals = 0
        """Calls that the master did not understand."""
        self._extensions: int | None = None

    @property
    def why_not(self) -> str:
        """Why calls fail now; empty while the master answers."""
        return self._why_not

    def revive(self) -> bool:
        """Look whether the master is there, and let calls through again if so; whether it is."""
        try:
            line = self._connect()
        except MasterUnavailable:
            return False
        try:
            line.sock.settimeout(None)
            sockets.set_timeouts(line.sock, receive=PING_SECONDS, send=PING_SECONDS)
            line.call("ServiceReady", ())
            sockets.set_timeouts(line.sock, receive=CALL_SECONDS, send=CALL_SECONDS)
        except (OSError, RemoteProtocolError, CallRefused) as error:
            line.close()
            self._gone(error)
            return False
        with self._lock:
            if self._closed:
                line.close()
                return False
            self._why_not = ""
            self.lost.clear()
            self._idle.append(line)
        return True

    def close(self, segments: Sequence[bytes] = (), *, disk: bool = False) -> None:
        """End all calls, and say in ``LEAVE_SECONDS`` that the memory of ``segments``, and the ``disk``, are gone.

        Twice is harmless.
        """
        reachable = not self._why_not
        with self._lock:
            self._closed = True
        self._gone(ConnectionAbortedError("this client was closed"))
        if (segments or disk) and reachable:
            try:
                line = Line(self._host, self._port, self.address, b"")
                with contextlib.closing(line):
                    sockets.set_timeouts(line.sock, receive=LEAVE_SECONDS, send=LEAVE_SECONDS)
                    for segment in segments:
                        line.call("UnmountSegment", (segment, self.client))
                    if disk:
                        line.call("UnmountLocalDiskSegment", (self.client,))
            except (OSError, RemoteProtocolError, CallRefused) as error:
                log.info("the store's master was not told that memory is gone, and will notice: %s", error)

    # Values

    def exist(self, keys: Sequence[str]) -> list[bool | Code]:
        """Which keys have a value that can be read."""
        if len(keys) == 1:
            return [self._call("ExistKey", keys[0], self.tenant)]
        return self._batch("BatchExistKey", keys, list(keys), self.tenant)

    def replicas(self, keys: Sequence[str]) -> list[Replicas | Code]:
        """Where values lie; each that is there is kept for a while."""
        if len(keys) == 1:
            return [self._call("GetReplicaList", keys[0], self.tenant)]
        return self._batch("BatchGetReplicaList", keys, list(keys), self.tenant)

    def replicas_by_regex(self, pattern: str) -> dict[str, list[Replica]] | Code:
        """Where the values of all keys that match lie."""
        found: dict[str, list[Replica]] | Code = self._call("GetReplicaListByRegex", pattern, self.tenant)
        return found

    def put_start(
        self, keys: Sequence[str], sizes: Sequence[int], config: ReplicateConfig, *, replace: bool
    ) -> list[list[Replica] | Code]:
        """Memory for values."""
        verb = "Upsert" if replace else "Put"
        if len(keys) == 1:
            return [self._call(f"{verb}Start", self.client, keys[0], sizes[0], config, self.tenant)]
        return self._batch(f"Batch{verb}Start", keys, self.client, list(keys), list(sizes), config, self.tenant)

    def put_end(self, metas: Sequence[ObjectMeta], *, replace: bool) -> list[Code]:
        """Say that values were written."""
        verb = "Upsert" if replace else "Put"
        if len(metas) == 1:
            return [_code(self._call(f"{verb}End", self.client, metas[0], Kind.ALL, self.tenant))]
        if replace:
            found = self._batch("BatchUpsertEnd", metas, self.client, list(metas), self.tenant)
        else:
            found = self._batch("BatchPutEnd", metas, self.client, list(metas), Kind.ALL, self.tenant)
        return [_code(each) for each in found]

    def put_revoke(self, keys: Sequence[str], *, replace: bool) -> list[Code]:
        """Give memory back that was not written."""
        verb = "Upsert" if replace else "Put"
        if len(keys) == 1:
            return [_code(self._call(f"{verb}Revoke", self.client, keys[0], Kind.ALL, self.tenant))]
        if replace:
            found = self._batch("BatchUpsertRevoke", keys, self.client, list(keys), self.tenant)
        else:
            found = self._batch("BatchPutRevoke", keys, self.client, list(keys), Kind.ALL, self.tenant)
        return [_code(each) for each in found]

    def remove(self, key: str, *, force: bool) -> Code:
        """Remove a value."""
        return _code(self._call("Remove", key, force, self.tenant))

    def remove_many(self, keys: Sequence[str], *, force: bool) -> list[Code]:
        """Remove values."""
        return [_code(each) for each in self._batch("BatchRemove", keys, list(keys), force, self.tenant)]

    def remove_by_regex(self, pattern: str, *, force: bool) -> int | Code:
        """Remove all whose key matches; how many those were."""
        found: int | Code = self._call("RemoveByRegex", pattern, force, self.tenant)
        return found

    def remove_all(self, *, force: bool) -> int:
        """Remove all; how many those were."""
        return int(self._call("RemoveAll", force, self.tenant))

    # Segments and the client itself

    def mount(self, segment: Segment) -> Code:
        """Give memory to the pool."""
        return _code(self._call("MountSegment", segment, self.client))

    def remount(self, segments: Sequence[Segment]) -> Code:
        """Say again what was given."""
        return _code(self._call("ReMountSegment", list(segments), self.client))

    def unmount(self, segment: bytes, grace: float = 0.0) -> Code:
        """Take memory back, after ``grace`` seconds."""
        if grace > 0:
            return _code(self._call("GracefulUnmountSegment", segment, self.client, int(grace * 1000)))
        return _code(self._call("UnmountSegment", segment, self.client))

    def ping(self) -> Ping | Code:
        """Say that this client lives. It has a bound of its own, so that a master that stands still is noticed."""
        answer: Ping | Code = self._call("Ping", self.client, timeout=PING_SECONDS)
        return answer

    def tasks(self, most: int) -> list[TaskAssignment] | Code:
        """What this client is asked to copy or move."""
        found: list[TaskAssignment] | Code = self._call("FetchTasks", self.client, most)
        return found

    def report_unreachable(self, endpoint: str, *, refused: bool) -> None:
        """Say that another client's memory cannot be reached; ``refused`` where nothing listens there.

        A master that has no such call, as upstream's, is not told.
        """
        served = self._extensions
        if served is None:
            answer = self._call("QuerySegmentStatus", EXTENSIONS_ASKED)
            served = self._extensions = 0 if isinstance(answer, Code) else int(answer)
        if served & Extension.REPORT_UNREACHABLE:
            self._call("ReportUnreachable", self.client, endpoint, refused)

    def call(self, method: str, *args: Any) -> Any:
        """Any other call, by its name upstream. Raises ``MasterUnavailable``."""
        return self._call(method, *args)

    # Inside

    def _batch(self, method: str, keys: Sequence[object], *args: Any) -> list[Any]:
        if not keys:
            return []
        found = self._call(method, *args)
        if isinstance(found, Code):
            return [found] * len(keys)
        if len(found) != len(keys):
            raise self._gone(RemoteProtocolError(peer=self.address, detail=f"{len(found)} answers to {len(keys)} keys"))
        return list(found)

    def _call(self, method: str, *args: Any, timeout: float = 0.0) -> Any:
        """Raises ``MasterUnavailable``."""
        if self._why_not and (known := self._unavailable()) is not None:
            raise known
        try:
            line = self._idle.pop()
        except IndexError:
            line = self._connect()
        busy = self._busy
        busy.add(line)
        try:
            if timeout:
                sockets.set_timeouts(line.sock, receive=timeout, send=timeout)
            result = line.call(method, args)
            if timeout:
                sockets.set_timeouts(line.sock, receive=CALL_SECONDS, send=CALL_SECONDS)
        except (OSError, RemoteProtocolError) as error:
            busy.discard(line)
            line.close()
            # Where another call has found the master gone, it has broken this one off.
            raise self._unavailable() or self._gone(error) from None
        except CallRefused as error:
            self.refusals += 1
            log.warning("the master at %s does not take %s: %s", self.address, method, error)
            result = Code.RPC_FAILED
        except BaseException:
            busy.discard(line)
            line.close()
            raise
        busy.discard(line)
        if self._why_not or len(self._idle) >= MAX_IDLE:
            line.close()
        else:
            self._idle.append(line)
        return result

    def _connect(self) -> Line:
        try:
            return Line(self._host, self._port, self.address, self._introduction)
        except OSError as error:
            raise self._gone(error) from None

    def _unavailable(self) -> MasterUnavailable | None:
        """The error for a master that is known to be gone."""
        why = self._why_not
        return MasterUnavailable(address=self.address, detail=why) if why else None

    def _gone(self, error: Exception) -> MasterUnavailable:
        """Let calls fail from now on; the error that says why."""
        if isinstance(error, BlockingIOError):
            detail = "it does not answer"
        elif isinstance(error, RemoteProtocolError):
            detail = str(error.fields["detail"])
        elif isinstance(error, OSError):
            detail = words(error)
        else:
            detail = str(error)
        with self._lock:
            first = not self._why_not and not self._closed
            self._why_not = detail
            self._extensions = None  # the one that comes may be another
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for line in (*idle, *busy):
            line.close()
        if first:
            log.warning("the store's master at %s cannot be used: %s", self.address, detail)
        self.lost.set()
        return MasterUnavailable(address=self.address, detail=detail)


def _code(answer: object) -> Code:
    """What an answer without a result says."""
    return answer if isinstance(answer, Code) else Code.OK
