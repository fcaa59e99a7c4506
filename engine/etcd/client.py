"""A thin client of etcd's gRPC API: several endpoints, TLS, users, deadlines; no knowledge of our keys.

An endpoint serves until it fails, then the next one is tried. A call that may be made twice is repeated on another
endpoint after any failure; one that may not, only where the failure proves that no server saw it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from engine import forks
from engine.errors import (
    ForkedFromEtcd,
    MetadataFull,
    MetadataRefused,
    MetadataUnavailable,
    MetadataUnhealthy,
    MooncakeError,
    UsageError,
)
from engine.etcd import messages as m
from engine.etcd.connections import connections_to
from engine.etcd.credentials import EtcdCredentials
from engine.etcd.faults import FROM_SERVER, FaultKind, classify, tidy
from engine.etcd.identity import Identity, Pem
from engine.etcd.targets import target_of
from engine.net.backoff import EVENLY, Backoff
from engine.net.within import within

# gRPC's core writes its own log to stderr, where it would tear the terminal; what matters reaches us as errors.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import grpc.aio

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 2.0
"""Seconds for one endpoint to accept a connection (TLS included)."""
ATTEMPT_TIMEOUT = 3.0
"""Seconds for one endpoint to answer."""
CALL_TIMEOUT = 8.0
"""Seconds after which no further attempt begins; a call ends at most one attempt later."""
RETRY_WINDOW = 1.0
"""Seconds during which endpoints that fail at once are tried again."""
BACKOFF = Backoff(0.1, 0.1, EVENLY)
"""The pause between two rounds over the endpoints."""
MAX_MESSAGE = 64 << 20
"""Bytes of a message that a server may send; etcd bounds requests, not answers."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    # Pings find a server that went away without a word. etcd tolerates one every 5 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT * 1000)),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A proxy set for the web is never meant for the cluster's own etcd.
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True)
class Method:
    """One call of etcd's API: its gRPC path, and the class of its answer."""

    path: str
    answer: Any
    stream: bool = False


RANGE = Method("/etcdserverpb.KV/Range", m.RangeResponse)
DELETE_RANGE = Method("/etcdserverpb.KV/DeleteRange", m.DeleteRangeResponse)
TXN = Method("/etcdserverpb.KV/Txn", m.TxnResponse)
WATCH = Method("/etcdserverpb.Watch/Watch", m.WatchResponse, stream=True)
GRANT = Method("/etcdserverpb.Lease/LeaseGrant", m.LeaseGrantResponse)
REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", m.LeaseRevokeResponse)
KEEP_ALIVE = Method("/etcdserverpb.Lease/LeaseKeepAlive", m.LeaseKeepAliveResponse, stream=True)
TIME_TO_LIVE = Method("/etcdserverpb.Lease/LeaseTimeToLive", m.LeaseTimeToLiveResponse)
STATUS = Method("/etcdserverpb.Maintenance/Status", m.StatusResponse)
AUTHENTICATE = Method("/etcdserverpb.Auth/Authenticate", m.AuthenticateResponse)


class EtcdFault(Exception):
    """A call failed for a reason that the store handles."""

    def __init__(self, fault: FaultKind, detail: str, *, answered: bool = False) -> None:
        """``detail`` is what gRPC or etcd said; ``answered``: it was etcd."""
        super().__init__(detail)
        self.fault = fault
        self.detail = detail
        self.answered = answered


def fault_of(error: grpc.aio.AioRpcError) -> EtcdFault:
    """What a gRPC error means."""
    details = error.details() or error.code().name
    return EtcdFault(classify(error.code().name, details), tidy(details), answered=details.startswith(FROM_SERVER))


_forked_from: list[int] = []
"""Processes that we were forked from while they had a channel.

gRPC's own threads are missing here: a call would hang, or end this process.
"""

_made: weakref.WeakSet[Any] = weakref.WeakSet()
"""Channels that live. gRPC keeps its threads for those that were closed, too, as long as anything refers to them."""


class _Channels:
    """See ``forks.Inherited``: a child knows of every channel, also where the client that had it is gone."""

    def inherited(self) -> list[int]:
        living = list(_made)
        if living:
            _forked_from.append(forks.parent())
            for channel in living:
                forks.never_end(channel)
        return []


_channels = _Channels()
forks.ask_at_fork(_channels)


class EtcdClient:
    """Calls to one etcd cluster. Belongs to the event loop in which it is first used."""

    def __init__(self, endpoints: Sequence[str], credentials: EtcdCredentials, *, tls: bool, url: str) -> None:
        """``endpoints`` are ``host:port`` or ``unix_endpoint``s; ``url`` is what error messages call the cluster."""
        if not endpoints:
            raise UsageError(detail="an etcd URL names at least one server")
        self.url = url
        self._endpoints = tuple(endpoints)
        self._identity = Identity(credentials)
        self._tls = tls
        self._channels: dict[str, Any] = {}
        self._shown: dict[str, Pem] = {}
        self._retired: dict[asyncio.Future[None], Any] = {}
        self._kept = contextlib.ExitStack()
        self._at = 0
        self._token = ""
        self._login = asyncio.Lock()
        self._closed = False
        self._origin = forks.Origin(f"this connection to {url}")
        forks.ask_at_fork(self)

    def inherited(self) -> list[int]:
        """See ``forks.Inherited``. gRPC does not tell its sockets; they are those that lead to the servers."""
        return connections_to(self._endpoints) if self._channels else []

    @property
    def endpoint(self) -> str:
        """The endpoint that serves now."""
        return self._endpoints[self._at]

    async def _channel(self, endpoint: str) -> Any:
        pem = await self._identity.pem() if self._tls else None
        self._origin.check()
        if _forked_from:
            raise ForkedFromEtcd(what=self.url, pid=_forked_from[0])
        if self._closed:
            raise MetadataUnavailable(url=self.url, detail="this handle is closed")
        old = self._channels.get(endpoint)
        if old is not None and pem is not None and pem != self._shown[endpoint]:
            # A connection that stands is as good as it was, and others may be at work on it.
            if old.get_state() is grpc.ChannelConnectivity.READY:
                return old
            log.info("etcd: connecting to %s with the certificates that are there now", endpoint)
            self._retire(self._channels.pop(endpoint))
        if endpoint not in self._channels:
            if pem is None:
                channel = grpc.aio.insecure_channel(self._target(endpoint), options=_OPTIONS)
            else:
                self._shown[endpoint] = pem
                channel = grpc.aio.secure_channel(endpoint, grpc.ssl_channel_credentials(*pem), options=_OPTIONS)
            self._channels[endpoint] = channel
            _made.add(channel)
        return self._channels[endpoint]

    def _retire(self, channel: Any) -> None:
        """Close a channel when nobody is at work on it any more: a broken call looks like a cancelled task."""

        async def close() -> None:
            await asyncio.sleep(2 * ATTEMPT_TIMEOUT)
            await channel.close()

        task = asyncio.ensure_future(close())
        self._retired[task] = channel
        task.add_done_callback(lambda done: self._retired.pop(done, None))

    def _target(self, endpoint: str) -> str:
        try:
            return target_of(endpoint, self._kept)
        except OSError as error:
            raise EtcdFault(FaultKind.NEVER_SENT, f"{endpoint}: {error.strerror}") from error

    async def _connected(self, endpoint: str) -> Any:
        """The endpoint's channel, once it is connected or has failed to."""
        channel = await self._channel(endpoint)
        deadline = time.monotonic() + CONNECT_TIMEOUT
        state = channel.get_state(try_to_connect=True)
        settled = (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE)
        while state not in settled:
            try:
                await within(channel.wait_for_state_change(state), max(0.0, deadline - time.monotonic()))
            except asyncio.TimeoutError:
                detail = f"{endpoint} accepts no connection within {CONNECT_TIMEOUT:g} s"
                raise EtcdFault(FaultKind.NEVER_SENT, detail) from None
            except grpc.aio.UsageError as error:
                raise EtcdFault(FaultKind.NEVER_SENT, "this handle is closed") from error
            state = channel.get_state(try_to_connect=True)
        return channel

    async def _metadata(self, endpoint: str) -> tuple[tuple[str, str], ...]:
        """The token of our user, if we have one; logs in where need be."""
        if not self._identity.user:
            return ()
        async with self._login:
            if not self._token:
                password = await self._identity.password()
                request = m.AuthenticateRequest(name=self._identity.user, password=password)
                try:
                    answer = await self._once(endpoint, AUTHENTICATE, request, ())
                except EtcdFault as error:
                    if error.fault is FaultKind.NO_AUTH:
                        return ()
                    if error.fault is FaultKind.UNKNOWN:
                        raise EtcdFault(FaultKind.NEVER_SENT, error.detail) from error
                    raise
                self._token = answer.token
            return (("token", self._token),)

    async def _once(self, endpoint: str, method: Method, request: Any, metadata: Any) -> Any:
        """One attempt on one endpoint; raises ``EtcdFault``."""
        channel = await self._connected(endpoint)
        try:
            if method.stream:
                call = self._stream(channel, method, metadata, timeout=ATTEMPT_TIMEOUT)
                try:
                    await call.write(request)
                    answer = await call.read()
                finally:
                    call.cancel()
                if answer is grpc.aio.EOF:
                    raise EtcdFault(FaultKind.UNKNOWN, f"{endpoint} ended the call")
                return answer
            unary = channel.unary_unary(
                method.path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=method.answer.FromString,
            )
            return await unary(request, timeout=ATTEMPT_TIMEOUT, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                detail = f"{endpoint} gave no answer within {ATTEMPT_TIMEOUT:g} s"
                raise EtcdFault(FaultKind.UNKNOWN, detail) from error
            raise fault_of(error) from error
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise EtcdFault(FaultKind.UNKNOWN, "the connection was closed") from error
        except asyncio.CancelledError:
            # gRPC says the same of a call whose channel we closed as asyncio does of a task that was cancelled.
            if self._closed:
                raise EtcdFault(FaultKind.UNKNOWN, "this handle is closed") from None
            raise

    @staticmethod
    def _stream(channel: Any, method: Method, metadata: Any, timeout: float | None) -> Any:
        return channel.stream_stream(
            method.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=method.answer.FromString,
        )(timeout=timeout, metadata=metadata)

    async def open_stream(self, endpoint: str, method: Method) -> Any:
        """An open stream without a deadline; raises ``EtcdFault``."""
        metadata = await self._metadata(endpoint)
        return self._stream(await self._connected(endpoint), method, metadata, timeout=None)

    def fail_over(self, endpoint: str) -> None:
        """Let the one after ``endpoint`` serve, unless another call has seen to that already."""
        if self.endpoint == endpoint:
            self._at = (self._at + 1) % len(self._endpoints)

    def forget_token(self) -> None:
        """Log in again before the next call."""
        self._token = ""

    async def call(self, method: Method, request: Any, *, repeatable: bool) -> Any:
        """Make a call, on as many endpoints as it takes.

        Raises ``MetadataUnavailable`` (``MetadataFull`` among it), ``MetadataRefused``, ``UsageError`` (etcd does not
        allow the request) and ``EtcdFault`` for a lost lease or a compacted revision.
        """
        began = time.monotonic()
        logins = 0
        tried = 0
        worst: EtcdFault | None = None
        while True:
            endpoint = self.endpoint
            try:
                return await self._once(endpoint, method, request, await self._metadata(endpoint))
            except EtcdFault as error:
                fault = error
            if fault.fault is FaultKind.TOKEN and logins == 0:
                logins += 1
                self.forget_token()
                continue
            if fault.fault not in {FaultKind.NEVER_SENT, FaultKind.TLS, FaultKind.UNKNOWN}:
                self.give_up(fault)
            if worst is None or fault.fault is FaultKind.TLS or (fault.answered and worst.fault is not FaultKind.TLS):
                worst = fault
            tried += 1
            self.fail_over(endpoint)
            log.debug("etcd: %s failed: %s", method.path, fault.detail)
            spent = time.monotonic() - began
            last = spent > CALL_TIMEOUT or (spent > RETRY_WINDOW and tried >= len(self._endpoints))
            if last or (fault.fault is FaultKind.UNKNOWN and not repeatable):
                self.give_up(worst)
            if tried % len(self._endpoints) == 0:
                await asyncio.sleep(BACKOFF.after(tried // len(self._endpoints)))

    def give_up(self, error: EtcdFault) -> NoReturn:
        """Raise what the user or the store is to see of a fault."""
        if error.fault in {FaultKind.NO_LEASE, FaultKind.COMPACTED, FaultKind.NO_AUTH}:
            raise error
        raise self.shown(error) from error

    def shown(self, error: EtcdFault) -> MooncakeError:
        """The error of our tree for a fault."""
        if error.fault in {FaultKind.REFUSED, FaultKind.TLS, FaultKind.TOKEN}:
            return MetadataRefused(url=self.url, detail=error.detail)
        if error.fault is FaultKind.MISUSE:
            return UsageError(detail=f"etcd does not allow it: {error.detail}")
        if error.fault is FaultKind.NO_SPACE:
            return MetadataFull(url=self.url, detail=error.detail)
        if error.answered:
            return MetadataUnhealthy(url=self.url, detail=error.detail)
        detail = error.detail
        if "ocket closed" in detail:
            # What each side sees of the other when one speaks TLS and the other does not.
            detail += " (does it speak TLS?)" if self._tls else " (if it speaks TLS, say etcds://)"
        return MetadataUnavailable(url=self.url, detail=detail)

    async def close(self) -> None:
        """Close the connections; calls under way fail."""
        if self._origin.elsewhere:
            return
        self._closed = True
        retired = list(self._retired.items())
        for task, _ in retired:
            task.cancel()
        for channel in [*self._channels.values(), *(each for _, each in retired)]:
            await channel.close()
        self._channels.clear()
        self._kept.close()
