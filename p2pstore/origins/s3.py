"""Objects of an S3 store as an origin, by s3fs: a key, or all keys below a prefix.

Which store, who reads it and with what secret is boto's own business: its variables, ``~/.aws``, or the machine's role.
An object is read by ranges with ``If-Match``, so that all of it is of the version that was there at the beginning.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from p2pstore.errors import OriginChanged, OriginNotFound, OriginRefused, OriginUnavailable, PackageMissing
from p2pstore.objects.chosen import takes
from p2pstore.objects.selection import Selection
from p2pstore.objects.waiting import together
from p2pstore.origins.address import Place
from p2pstore.origins.proof import is_of_parts
from p2pstore.origins.s3_hashes import hashes_of, part_size, parts_of
from p2pstore.origins.source import OriginFile

if TYPE_CHECKING:
    import s3fs

BLOCK_BYTES = 8 << 20
"""Of one request."""

SILENCE_SECONDS = 15.0
"""Without a byte, after which a connection counts as broken; botocore tries again as its settings say."""

LOOKS_AT_ONCE = 16
"""Objects that are asked at a time what they are."""

DIRECTORY_BUCKET = "--x-s3"
"""What names of buckets end with whose ETags are no hashes."""

MAX_WORDS = 300
"""Characters of what a store, or boto, says of a refusal."""

REFUSALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "NoRegionError", "ParamValidationError"}
)
"""Errors of botocore's, by their names, that the same attempt would meet again."""


class S3Source:
    """See ``Source``. Raises ``PackageMissing`` without s3fs."""

    reads = True
    revision = ""

    def __init__(self, place: Place) -> None:
        self._shown = str(place)
        self._path = place.path
        try:
            import s3fs  # noqa: PLC0415 - an extra, and slow to import
        except ImportError:
            package, install = "the package s3fs", "mooncake-cli[origins]"
            raise PackageMissing(what="s3://", package=package, install=install) from None
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
            except (OriginNotFound, OriginRefused):  # where keys may not be listed, of one that is not there
                found = await asyncio.to_thread(self._below)
                if not found:
                    raise
        else:
            found = await asyncio.to_thread(self._below)
        if not found:
            raise OriginNotFound(origin=self._shown, detail="there is nothing below it")
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
        etag, place, size_of_parts = str(told.get("ETag", "")), f"s3://{bucket}/{key}", 0
        if parts_of(told):
            with contextlib.suppress(OriginNotFound, OriginRefused, OriginUnavailable):  # it is read all the same
                size_of_parts = part_size(told, self._part(place, 1))
        hashes = hashes_of({**told, "ETag": ""} if bucket.endswith(DIRECTORY_BUCKET) else told, size_of_parts)
        return OriginFile(path, place, int(told["ContentLength"]), etag, etag, hashes)

    def _part(self, place: str, number: int) -> Mapping[str, Any]:
        """What the store says of one part of an object that was uploaded in parts. Raises as ``files``."""
        bucket, _, key = place.removeprefix("s3://").partition("/")
        try:
            told: Mapping[str, Any] = self._system.call_s3("head_object", Bucket=bucket, Key=key, PartNumber=number)
        except Exception as error:  # noqa: BLE001 - as above
            raise self._fault(error) from None
        return told

    async def sure(self, file: OriginFile) -> bool:
        """See ``Source.sure``. The hash of parts of which each is as long as the first says nothing of other parts."""
        if not all(is_of_parts(kind) for kind, _ in file.hashes):
            return True
        count = max(int(digest.rpartition("-")[2]) for _, digest in file.hashes)
        works = [partial(asyncio.to_thread, self._part, file.place, number) for number in range(1, count + 1)]
        told = await together(works, at_once=LOOKS_AT_ONCE, name=f"look at the parts of {file.place}")
        return len({int(part["ContentLength"]) for part in told[:-1]}) <= 1

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

    def _fault(self, error: Exception) -> OriginNotFound | OriginRefused | OriginUnavailable:
        """What an error of botocore's or s3fs's means."""
        said = " ".join(str(error).split())[:MAX_WORDS] or type(error).__name__
        if isinstance(error, FileNotFoundError):
            return OriginNotFound(origin=self._shown, detail="there is no such object")
        if isinstance(error, PermissionError) or type(error).__name__ in REFUSALS:
            return OriginRefused(origin=self._shown, detail=said)
        return OriginUnavailable(origin=self._shown, detail=said)
