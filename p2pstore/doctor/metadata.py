"""Whether the metadata server answers, each of its endpoints, which version it is, and what time it has."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

from engine.etcd.credentials import EtcdCredentials
from engine.net import addresses
from engine.net.within import within
from engine.protocol.local_socket import short_path
from p2pstore.cluster import records
from p2pstore.errors import MetadataFull, MetadataUnhealthy, MooncakeError
from p2pstore.metadata.store import ServerInfo
from p2pstore.metadata.urls import UNIX, open_store, parse_url
from p2pstore.objects.units import format_size
from p2pstore.peers.checks import Check, failed, ok, warning

ANSWER_SECONDS = 5.0
"""For an endpoint to say its version."""

READ_SECONDS = 15.0
"""For one read with our credentials, whichever endpoint answers."""

MAX_ANSWER_BYTES = 64 * 1024

OLDEST = {(3, 4): 22, (3, 5): 6}
"""The first good patch release of each line; etcd could lose or garble what it held before (its own advisories)."""

MOST_SKEW = 5.0
"""Seconds by which clocks may differ without a word. Requests with a cluster secret are refused from 300 on."""


def check_metadata(url: str, credentials: EtcdCredentials, *, own: bool = False) -> Iterator[Check]:
    """Checks of the server at ``url``. ``own``: an agent started it for itself, and what it holds is disposable.

    Raises ``BadConfig`` for an invalid URL.
    """
    parsed = parse_url(url)
    if parsed.scheme == "memory":
        yield ok("metadata server", f"{url}, in this process's memory")
        return
    for endpoint in parsed.parts:
        tls = credentials if parsed.scheme == "etcds" else None
        yield from _endpoint(endpoint, tls, unix=parsed.scheme == UNIX, own=own)
    yield from asyncio.run(_read(url, credentials))


def _endpoint(endpoint: str, tls: EtcdCredentials | None, *, unix: bool, own: bool) -> Iterator[Check]:
    subject = f"etcd {endpoint}"
    host, port = ("localhost", 0) if unix else addresses.parse(endpoint)
    connection: http.client.HTTPConnection
    try:
        if unix:
            connection = http.client.HTTPConnection(host)
            connection.sock = _connected(Path(endpoint))
        elif tls is None:
            connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
        else:
            context = ssl.create_default_context(cafile=tls.ca or None)
            if tls.cert:
                context.load_cert_chain(tls.cert, tls.key or None)
            connection = http.client.HTTPSConnection(host, port, timeout=ANSWER_SECONDS, context=context)
        began = time.time()
        try:
            connection.request("GET", "/version")
            with connection.getresponse() as answer:
                body, date = answer.read(MAX_ANSWER_BYTES), answer.headers.get("Date", "")
        finally:
            connection.close()
        took = time.time() - began
        version = json.loads(body)["etcdserver"]
    except (OSError, http.client.HTTPException) as error:
        detail = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        yield failed(subject, f"it does not answer: {detail.lower()}", "check that etcd runs there", 6)
        return
    except (ValueError, KeyError, TypeError):
        yield failed(subject, "what answers there is no etcd", "check the metadata URL: 'mooncake config show'", 6)
        return
    answers = f"version {str(version)[:40]}, answers in {1000 * took:.1f} ms"
    yield ok(subject, f"{answers}; the agent's own") if own else _version(subject, str(version), answers)
    yield from clock(subject, date, began, took)


def _connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(ANSWER_SECONDS)
        with short_path(path) as name:
            sock.connect(name)
    except OSError:
        sock.close()
        raise
    return sock


def _version(subject: str, version: str, detail: str) -> Check:
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if match is None:
        return warning(subject, detail, "its version is unknown here")
    line, patch = (int(match[1]), int(match[2])), int(match[3])
    if line < min(OLDEST) or patch < OLDEST.get(line, 0):
        wanted = " or ".join(f"{major}.{minor}.{first}" for (major, minor), first in OLDEST.items())
        return warning(subject, f"{detail}, which is old", f"update it to {wanted}, or newer")
    return ok(subject, detail)


def clock(subject: str, date: str, began: float, took: float) -> Iterator[Check]:
    """How far the clock of whoever sent this HTTP date is from ours; nothing where it sent none.

    A date is cut to the second, so it counts as half a second later.
    """
    try:
        theirs = parsedate_to_datetime(date).timestamp() + 0.5
    except (ValueError, TypeError):
        return
    skew = theirs - (began + took / 2)
    if abs(skew) <= MOST_SKEW:
        yield ok(f"clock of {subject}", f"within {max(1.0, abs(skew)):.0f} s of ours")
    else:
        detail = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours"
        yield warning(f"clock of {subject}", detail, "set both clocks by NTP; from 300 s on, secrets are refused")


async def _read(url: str, credentials: EtcdCredentials) -> list[Check]:
    """One read, as an agent would: with our user, password and certificates; and whether it can be written."""
    store = open_store(url, credentials)
    try:
        await within(store.get(records.NODES), READ_SECONDS)
        info = await within(store.check(), READ_SECONDS)
    except MooncakeError as error:
        return [failed("metadata server", str(error), error.hint, error.exit_code)]
    except asyncio.TimeoutError:
        return [failed("metadata server", f"no answer in {READ_SECONDS:g} s", "check that etcd has a leader", 6)]
    finally:
        await store.close()
    return [ok("metadata server", f"{url} can be read"), *_alarms(url, info)]


def _alarms(url: str, info: ServerInfo) -> Iterator[Check]:
    """What the server raised the alarm about: it then refuses to write, and looks healthy otherwise."""
    for alarm in info.alarms:
        error: MooncakeError
        if alarm == "NOSPACE":
            error = MetadataFull(url=url, detail=f"alarm {alarm}, its database has {format_size(info.size)}")
        else:
            error = MetadataUnhealthy(url=url, detail=f"alarm {alarm}")
        yield failed("alarms of etcd", str(error), error.hint, error.exit_code)
