"""Asking the endpoints of a deployment whether they live."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from engine.errors import PeerStalled, PeerUnreachable, RemoteError
from engine.net.addresses import parse
from engine.net.handshake_client import exchange
from engine.net.sockets import is_loopback
from engine.protocol.handshake import Message, MessageType
from p2pstore.errors import BadConfig
from p2pstore.inspect.staleness import ProbeAnswer, ProbeTarget
from p2pstore.metadata.urls import UNIX, parse_url

TIMEOUT = 2.0
"""Seconds for one endpoint."""

AT_ONCE = 32
"""Endpoints that are asked together."""

_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


def on_loopback(url: str) -> bool:
    """Whether a store can only be used by processes of this machine, whose loopback is ours."""
    try:
        parsed = parse_url(url)
    except BadConfig:
        return False
    return parsed.scheme in {"memory", UNIX} or all(is_loopback(parse(part)[0]) for part in parsed.parts)


async def probe(
    endpoints: Iterable[ProbeTarget], *, loopback: bool, attempts: int = 1, timeout: float = TIMEOUT
) -> dict[ProbeTarget, ProbeAnswer]:
    """Ask them all; ``loopback`` says whether addresses of the loopback are this machine's.

    Those that do not answer are asked ``attempts`` times. Takes a few seconds for some hundred; raises nothing.
    """
    answers: dict[ProbeTarget, ProbeAnswer] = {}
    waiting = sorted(set(endpoints), key=str)
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="probe")
    try:
        for _ in range(attempts):
            asked = [loop.run_in_executor(executor, ask, each, loopback, timeout) for each in waiting]
            answers.update(zip(waiting, await asyncio.gather(*asked), strict=True))
            waiting = [each for each in waiting if answers[each] in {ProbeAnswer.REFUSED, ProbeAnswer.SILENT}]
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
    return answers


def ask(endpoint: ProbeTarget, loopback: bool, timeout: float = TIMEOUT) -> ProbeAnswer:  # noqa: FBT001 - run in a thread
    """Ask one; ``timeout`` in seconds. Raises nothing."""
    if not loopback and (endpoint.host in _WILDCARDS or is_loopback(endpoint.host)):
        return ProbeAnswer.NOT_ASKED
    try:
        if endpoint.plain:
            socket.create_connection((endpoint.host, endpoint.port), timeout=timeout).close()
        else:
            exchange(endpoint.host, endpoint.port, Message(MessageType.PROBE), timeout=timeout)
    except PeerStalled:
        return ProbeAnswer.SILENT
    except PeerUnreachable as error:
        return _meaning(error.__context__)
    except RemoteError:
        return ProbeAnswer.STRANGE
    except (OSError, UnicodeError) as error:
        return _meaning(error)
    return ProbeAnswer.ALIVE


def _meaning(error: BaseException | None) -> ProbeAnswer:
    if isinstance(error, ConnectionRefusedError):
        return ProbeAnswer.REFUSED
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return ProbeAnswer.STRANGE
    return ProbeAnswer.SILENT
