"""What an S3 store says of an object's hashes. Pure.

An ETag is the MD5 of what was uploaded at once, and of what was uploaded in parts the MD5 of the parts' MD5s and their
number; of what is encrypted with a key of somebody's it is neither. Additional checksums are of all of it, or of parts.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html and API_HeadObject.html.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from p2pstore.objects.oid import SHA256
from p2pstore.origins.proof import CRC32, MD5, kind_of_parts

Hashes = tuple[tuple[str, str], ...]

_MD5 = re.compile(r"[0-9a-f]{32}(?:-([1-9]\d{0,4}))?")


def parts_of(told: Mapping[str, Any]) -> int:
    """In how many parts an object was uploaded, as far as its hashes tell; 0 where they do not depend on that."""
    return max(_count(_etag(told)), _count(str(told.get("ChecksumSHA256") or "")))


def part_size(told: Mapping[str, Any], first: Mapping[str, Any]) -> int:
    """How long its parts are, by what the store says of the first one; 0 where they cannot all be as long."""
    size, length, parts = int(told["ContentLength"]), int(first["ContentLength"]), parts_of(told)
    if int(first.get("PartsCount") or 0) != parts or not length:
        return 0
    return length if (parts - 1) * length < size <= parts * length else 0


def hashes_of(told: Mapping[str, Any], size_of_parts: int = 0) -> Hashes:
    """The hashes that can be compared, where the parts are so long, if there are any."""
    found = []
    sha256 = _digest(str(told.get("ChecksumSHA256") or ""), 32, SHA256, size_of_parts)
    if sha256 is not None:
        found.append(sha256)
    etag = _etag(told)
    if etag:
        parts = _count(etag)
        if not parts:
            found.append((MD5, etag))
        elif size_of_parts:
            found.append((kind_of_parts(MD5, size_of_parts), etag))
    crc32 = _digest(str(told.get("ChecksumCRC32") or ""), 4, CRC32, 0)
    if crc32 is not None and not found:
        found.append(crc32)
    return tuple(found)


def _etag(told: Mapping[str, Any]) -> str:
    """An ETag that is made of MD5s; empty where it is not."""
    etag = str(told.get("ETag", "")).strip('"')
    plain = told.get("ServerSideEncryption") in {None, "AES256"} and not told.get("SSECustomerAlgorithm")
    return etag if plain and _MD5.fullmatch(etag) else ""


def _count(text: str) -> int:
    number = text.rpartition("-")[2] if "-" in text else ""
    return int(number) if number.isdecimal() else 0


def _digest(text: str, length: int, kind: str, size_of_parts: int) -> tuple[str, str] | None:
    encoded, _, number = text.partition("-")
    if number and not (number.isdecimal() and size_of_parts):
        return None
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(data) != length:
        return None
    return (kind_of_parts(kind, size_of_parts), f"{data.hex()}-{number}") if number else (kind, data.hex())
