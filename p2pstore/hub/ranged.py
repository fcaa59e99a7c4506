"""Asking a server for a part of a file, and what it makes of that: the part, or all from the beginning."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import AsyncGenerator

import aiohttp

from engine.net.addresses import join
from p2pstore.objects.file_system import words

BLOCK_BYTES = 1 << 20
"""Of a stream, at once."""

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def range_of(begin: int, end: int, size: int) -> dict[str, str]:
    """The header that asks for the bytes from ``begin`` to ``end`` of a file; none for all of it."""
    return {"Range": f"bytes={begin}-{end - 1}"} if begin or end < size else {}


def answered(answer: aiohttp.ClientResponse) -> tuple[int, int | None]:
    """Where what is sent begins in the file, and how long the whole is; None where that is not told.

    Raises ``ValueError`` where it is told in no way that is known.
    """
    if answer.status != 206:
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found is None:
        raise ValueError("no range is told")
    return int(found[1]), int(found[2]) if found[2] != "*" else None


async def blocks_of(answer: aiohttp.ClientResponse, skipped: int, count: int) -> AsyncGenerator[bytes, None]:
    """So many bytes of what is sent, after those that were not asked for. Raises ``BROKEN``."""
    async for block in answer.content.iter_chunked(BLOCK_BYTES):
        rest = block[min(skipped, len(block)) :][:count]
        skipped -= min(skipped, len(block))
        count -= len(rest)
        if rest:
            yield rest
        if not count:
            return


BROKEN = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
"""What aiohttp raises of a server that is away, or broke off."""


def fault_words(error: BaseException) -> str:
    """What happened, without the URL: it may be a redirect's, which may be signed."""
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ClientConnectorCertificateError)):
        return f"{join(error.host, error.port or 0)}: {_connecting(error)}"
    if isinstance(error, asyncio.TimeoutError):
        return "it does not answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "it sent less than it had said"
    told = isinstance(error, (aiohttp.ClientConnectionError, OSError)) and str(error)
    return told or type(error).__name__


def _connecting(error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError) -> str:
    """Why there is no connection. What aiohttp says itself names TLS where there is none."""
    fault = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error.os_error
    if isinstance(fault, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {fault.verify_message}"
    if isinstance(fault, ssl.SSLError):  # its errno is OpenSSL's, and no error of the system
        return f"no TLS with it: {fault.reason or fault}"
    if isinstance(fault, OSError) and fault.errno is not None and fault.errno > 0:
        return os.strerror(fault.errno).lower()
    return words(fault) if isinstance(fault, OSError) else str(fault)
