"""Objects of an S3 store as an origin, by s3fs: a key, or all keys below a prefix.

Which store, who reads it and with what secret is boto's own business: its variables, ``~/.aws``, or the machine's role.
An object is read by ranges with ``If-Match``, so that all of it is of the version that was there at the beginning.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from p2pstore.errors import OriginChanged, OriginRefused, OriginUnavailable, UsageError
from p2pstore.objects.chosen import takes
from p2pstore.objects.selection import Selection
from p2pstore.objects.waiting import together
from p2pstore.origins.address import Place
from p2pstore.origins.source import OriginFile

if TYPE_CHECKING:
    import s3fs

BLOCK_BYTES = 8 << 20
"""Of one request."""

SILENCE_SECONDS = 15.0
"""Without a byte, after which a connection counts as broken; botocore tries again as its settings say."""

LOOKS_AT_ONCE = 16
"""Objects that are asked at a time what they are."""

MAX_WORDS = 300
"""Characters of what a store, or boto, says of a refusal."""

REFUSALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "NoRegionError", "ParamValidationError"}
)
"""Errors of botocore's, by their names, that the same attempt would meet again."""

_MD5 = re.compile(r"[0-9a-f]{32}")


class S3Source:
    """See ``Source``. Raises ``UsageError`` without s3fs."""

    reads = True
    revision = ""

    def __init__(self, place: Place) -> None:
        self._shown = str(place)
        self._path = place.path
        try:
            import s3fs  # noqa: PLC0415 - an extra, and slow to import
        except ImportError:
            raise UsageError(detail="s3:// needs the package s3fs: pip install 'mooncake-cli[origins]'") from None
        self._system: s3fs.S3FileSystem = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
        self._system.retries = 1  # else it does five times what botocore does five times
        self._system.read_timeout = SILENCE_SECONDS

    async def close(self) -> None:
        """See ``Source.close``. The connections are s3fs's, which ends them with its file system."""

    async def files(self, selection: Selection) -> Sequence[OriginFile]:
        """See ``Source.files``."""
        bucket, _, key = self._path.partition("/")
        if key and not key.endswith("/"):
            try:
                return [await asyncio.to_thread(self._look, "", bucket, key)]
            except OriginRefused:
                found = await asyncio.to_thread(self._below)
                if not found:
                    raise
        else:
            found = await asyncio.to_thread(self._below)
        if not found:
            raise OriginRefused(origin=self._shown, detail="there is nothing below it")
        above = len(self._path.rstrip("/")) + 1
        taken = [path for path in found if takes(selection, path[above:])]
        works = [partial(asyncio.to_thread, self._look, path[above:], *path.split("/", 1)) for path in taken]
        return await together(works, at_once=LOOKS_AT_ONCE, name=f"look at {self._shown}")

    def _below(self) -> list[str]:
        """Bucket and key of all that is below the prefix, but for what stands for directories."""
        try:
            found: list[str] = self._system.find(self._path.rstrip("/"))
        except Exception as error:  # noqa: BLE001 - botocore's have no common class that is told of
            raise self._fault(error) from None
        return sorted(path for path in found if not path.endswith("/"))

    def _look(self, path: str, bucket: str, key: str) -> OriginFile:
        try:
            told = self._system.call_s3("head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        except Exception as error:  # noqa: BLE001 - as above
            raise self._fault(error) from None
        etag = str(told.get("ETag", ""))
        return OriginFile(path, f"s3://{bucket}/{key}", int(told["ContentLength"]), etag, etag, _hashes(told))

    async def stream(self, file: OriginFile, begin: int, end: int) -> AsyncGenerator[bytes, None]:
        """See ``Source.stream``."""
        while begin < end:
            block = await asyncio.to_thread(self._read, file, begin, min(BLOCK_BYTES, end - begin))
            begin += len(block)
            yield block

    def _read(self, file: OriginFile, begin: int, count: int) -> bytes:
        try:
            data = self._range(file, begin, count)
        except OriginChanged:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            if type(error).__name__ == "FileExpired":
                raise self._changed(file, "another") from None
            raise self._fault(error) from None
        if not data:
            raise OriginUnavailable(origin=self._shown, detail=f"{file.place} ends too early")
        return data

    def _range(self, file: OriginFile, begin: int, count: int) -> bytes:
        with self._system.open(file.place, "rb", cache_type="none") as opened:
            now = str(opened.details.get("ETag", "")), int(opened.details["size"])
            if now != (file.version, file.size):
                raise self._changed(file, now[0])
            opened.seek(begin)
            data: bytes = opened.read(count)
        return data

    def _changed(self, file: OriginFile, now: str) -> OriginChanged:
        return OriginChanged(origin=self._shown, detail=f"the version of {file.place} was {file.version}, and is {now}")

    def _fault(self, error: Exception) -> OriginRefused | OriginUnavailable:
        """What an error of botocore's or s3fs's means."""
        said = " ".join(str(error).split())[:MAX_WORDS] or type(error).__name__
        if isinstance(error, FileNotFoundError):
            return OriginRefused(origin=self._shown, detail="there is no such object")
        if isinstance(error, PermissionError) or type(error).__name__ in REFUSALS:
            return OriginRefused(origin=self._shown, detail=said)
        return OriginUnavailable(origin=self._shown, detail=said)


def _hashes(told: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What a store says of an object's hashes: of all of it, and not of its parts' hashes, or of what is encrypted."""
    found = []
    text = str(told.get("ChecksumSHA256") or "")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""  # a '-' and a number say that it is of parts
    if len(data) == 32:
        found.append(("sha256", data.hex()))
    etag = str(told.get("ETag", "")).strip('"')
    plain = told.get("ServerSideEncryption") in {None, "AES256"} and not told.get("SSECustomerAlgorithm")
    if plain and _MD5.fullmatch(etag):
        found.append(("md5", etag))
    return tuple(found)
