"""Objects as files for programs that open URLs with fsspec: pandas, PyArrow, ``datasets``, ``torch.load``.

::

    pandas.read_parquet("mooncake://datasets/wiki/train.parquet", columns=["text"])
    with fsspec.open("mooncake://models/llama-3/model.pt") as file:
        torch.load(file)

``mooncake://NAME/PATH`` is a file of an object, ``mooncake://NAME`` the object; ``NAME@sha256:DIGEST`` is one version.
The agent of this machine brings the chunks that are read, and no others, verified; they stay in its copy,
from which other nodes get them, and which programs on this machine share. A file that is open stays at its version.

``storage_options={"home": DIR}`` names the agent's home. Nothing is written here: objects do not change.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fsspec.caching import BaseCache, register_cache
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from p2pstore.agent.client import AgentClient
from p2pstore.agent.home import Home
from p2pstore.errors import BadName, MooncakeError, NotInObject, ObjectNotFound
from p2pstore.integrations.fsspec_pages import Pages
from p2pstore.settings.settings import Settings

PROTOCOL = "mooncake"
RANGES = 4096
"""That are asked for in one call."""

COPY_BYTES = 64 << 20
"""Of a file that is copied, so many are asked for in one call."""


class MooncakeFileSystem(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """Reads objects through the agent of a home. Raises ``FileNotFoundError``, or what the agent raised."""

    protocol = PROTOCOL
    root_marker = ""

    def __init__(self, home: str | os.PathLike[str] | None = None, **options: Any) -> None:
        """``home`` is as of ``mooncake --home``; the other options are fsspec's own."""
        super().__init__(**options)
        named = Settings.load({"home": None if home is None else os.fspath(home)}).home
        self._client = AgentClient(Home.resolve(None if named is None else Path(named)))

    @property
    def fsid(self) -> str:
        """Which agent it is."""
        return f"{PROTOCOL}:{self._client.home.root}"

    # What there is

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """See ``AbstractFileSystem.info``; a file also has its object's ``manifest``, and ``created``."""
        path = self._strip_protocol(path)
        if not path:
            return _directory("")
        try:
            tree = self._tree(path)
        except FileNotFoundError:
            if next(self._objects(path), None) is None:
                raise
            return _directory(path)
        return _described(tree, tree["entry"])

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: FBT001 - as fsspec has it
        """See ``AbstractFileSystem.ls``. Names of objects have directories, too: as far as their slashes go."""
        path = self._strip_protocol(path)
        found = self._listed(path, recursive=False)
        return found if detail else sorted(each["name"] for each in found)

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,  # noqa: FBT001 - as above
        detail: bool = False,  # noqa: FBT001 - as above
        **options: Any,
    ) -> Any:
        """See ``AbstractFileSystem.find``: one call for all of an object."""
        path = self._strip_protocol(path)
        try:
            tree = self._tree(path, listed=True, recursive=True) if path and maxdepth is None else None
        except FileNotFoundError:
            tree = None
        if tree is None:
            return super().find(path, maxdepth=maxdepth, withdirs=withdirs, detail=detail, **options)
        entries = [tree["entry"]] if tree["entry"]["kind"] == "file" else tree["entries"]
        found = [_described(tree, each) for each in entries if withdirs or each["kind"] == "file"]
        return {each["name"]: each for each in found} if detail else [each["name"] for each in found]

    def _listed(self, path: str, *, recursive: bool) -> list[dict[str, Any]]:
        tree: dict[str, Any] | None = None
        if path:
            with contextlib.suppress(FileNotFoundError):
                tree = self._tree(path, listed=True, recursive=recursive)
        if tree is not None and tree["entry"]["kind"] == "file":
            return [_described(tree, tree["entry"])]
        found = {each["name"]: each for each in self._below(path)}
        if tree is not None:
            found.update((each["name"], each) for each in (_described(tree, entry) for entry in tree["entries"]))
        elif path and not found:
            raise _missing(path)
        return [found[name] for name in sorted(found)]

    def _below(self, path: str) -> Iterator[dict[str, Any]]:
        """What the names of objects below ``path`` make, as directories; an object may be a file."""
        seen: set[str] = set()
        below = f"{path}/" if path else ""
        for each in self._objects(path):
            child, more, _ = each["name"][len(below) :].partition("/")
            child = below + child
            if child not in seen:
                seen.add(child)
                yield _directory(child) if more or each["files"] != 1 else self.info(child)

    def _objects(self, path: str) -> Iterator[dict[str, Any]]:
        return self._client.all_objects(f"{path}/" if path else "")

    def _tree(self, path: str, *, listed: bool = False, recursive: bool = False) -> dict[str, Any]:
        try:
            return self._client.tree(path, listed=listed, recursive=recursive)
        except (ObjectNotFound, NotInObject, BadName) as error:
            raise _missing(path) from error

    def created(self, path: str) -> datetime:
        """When the object was registered."""
        return datetime.fromtimestamp(self.info(path)["created"], timezone.utc)

    def modified(self, path: str) -> datetime:
        """The same: objects do not change."""
        return self.created(path)

    def ukey(self, path: str) -> str:
        """What tells versions of a file apart: the manifest's digest, and its path."""
        found = self.info(path)
        return f"{found.get('manifest', '')}:{found['name']}"

    def checksum(self, path: str) -> int:
        """The same as a number."""
        return hash(self.ukey(path))

    # What is in it

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,  # noqa: ARG002, FBT001 - as fsspec has it
        cache_options: dict[str, Any] | None = None,
        cache_type: str = "mooncake",
        **options: Any,
    ) -> MooncakeFile:
        if mode != "rb":
            raise OSError(errno.EROFS, f"objects are read, not written; 'mooncake register' publishes ({mode!r})", path)
        details = self._file(path)
        if cache_type == MooncakeCache.name:
            cache_options = {**(cache_options or {}), "origin": details["origin"]}
        opened = MooncakeFile(
            self,
            path,
            mode,
            block_size or self.blocksize,
            cache_type=cache_type,
            cache_options=cache_options,
            size=details["size"],
            **options,
        )
        opened.details = details
        return opened

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """See ``AbstractFileSystem.cat_file``: just those bytes."""
        details = self._file(path)
        return self.read_ranges(details, [_range(details["size"], start, end)])[0]

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,  # noqa: ARG002 - ranges are not joined: each is exact
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        """See ``AbstractFileSystem.cat_ranges``: what is missing of all of them comes together."""
        count = len(paths)
        starts = starts if isinstance(starts, (list, tuple)) else [starts] * count
        ends = ends if isinstance(ends, (list, tuple)) else [ends] * count
        if len(starts) != count or len(ends) != count:
            raise ValueError("as many starts and ends are needed as paths")
        found: list[Any] = [None] * count
        files: dict[str, dict[str, Any]] = {}
        by_object: dict[str, list[int]] = {}
        for number, path in enumerate(paths):
            try:
                details = files[path] = files.get(path) or self._file(path)
            except (OSError, MooncakeError) as error:
                found[number] = error
            else:
                by_object.setdefault(details["manifest"], []).append(number)
        for numbers in by_object.values():
            ranges = [_range(files[paths[n]]["size"], starts[n], ends[n]) for n in numbers]
            try:
                came: Sequence[Any] = self._ranges([files[paths[n]] for n in numbers], ranges)
            except (OSError, MooncakeError) as error:
                came = [error] * len(numbers)
            for number, data in zip(numbers, came, strict=True):
                found[number] = data
        faults = [each for each in found if isinstance(each, Exception)]
        if faults and on_error == "raise":
            raise faults[0]
        return found

    def get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, outfile: Any = None, **_: Any) -> None:
        """See ``AbstractFileSystem.get_file``: a file that is a path is there whole, or not at all."""
        if self.isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
            return
        details = self._file(rpath)
        callback.set_size(details["size"])
        if outfile is not None or hasattr(lpath, "write"):
            self._copy(details, outfile or lpath, callback)
            return
        part = f"{os.fspath(lpath)}.mooncake-part"
        os.makedirs(os.path.dirname(os.path.abspath(lpath)), exist_ok=True)
        try:
            with open(part, "wb") as file:
                self._copy(details, file, callback)
            os.replace(part, lpath)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise

    def _copy(self, details: dict[str, Any], file: Any, callback: Any) -> None:
        for begin in range(0, details["size"], COPY_BYTES):
            data = self.read_ranges(details, [(begin, min(details["size"], begin + COPY_BYTES))])[0]
            file.write(data)
            callback.relative_update(len(data))

    def _file(self, path: str) -> dict[str, Any]:
        """What is known of a file. Raises ``FileNotFoundError`` and ``IsADirectoryError``."""
        path = self._strip_protocol(path)
        found = self.info(path)
        if found["type"] != "file":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return found

    def read_ranges(self, details: dict[str, Any], ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Ranges of a file, as ``info`` has it: pairs of a begin and an end within it."""
        return self._ranges([details] * len(ranges), ranges)

    def _ranges(self, details: Sequence[Any], ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Ranges of files of one object."""
        found: list[bytes] = []
        for at in range(0, len(ranges), RANGES):
            some, within = details[at : at + RANGES], ranges[at : at + RANGES]
            wanted = [(each["number"], *span) for each, span in zip(some, within, strict=True)]
            found += _apart(self._client.read(some[0]["object"], some[0]["manifest"], wanted), within)
        return found


class MooncakeFile(AbstractBufferedFile):  # type: ignore[misc] # fsspec has no types
    """An open file. Its ``details`` are what ``info`` told when it was opened: it stays at that version."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        """See ``AbstractBufferedFile``."""
        found: bytes = self.fs.read_ranges(self.details, [(start, min(end, self.size))])[0] if start < end else b""
        return found


class MooncakeCache(BaseCache):  # type: ignore[misc] # fsspec has no types
    """``Pages`` as fsspec has caches."""

    name = "mooncake"

    def __init__(self, blocksize: int, fetcher: Any, size: int, origin: int = 0) -> None:
        super().__init__(blocksize, fetcher, size)
        self._pages = Pages(fetcher, size, origin)

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        """See ``BaseCache``."""
        return self._pages.read(start or 0, self.size if stop is None else stop)


register_cache(MooncakeCache, clobber=True)


def _apart(events: Iterator[dict[str, Any]], ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """The bytes of ranges, which come end to end."""
    whole = bytearray()
    for event in events:
        if event["event"] == "data":
            whole += event["data"]
    view, found, at = memoryview(whole), [], 0
    for begin, end in ranges:
        found.append(bytes(view[at : at + end - begin]))
        at += end - begin
    if at != len(whole):
        raise MooncakeError(detail=f"the agent sent {len(whole)} bytes, and {at} were asked for")
    return found


def _range(size: int, start: int | None, end: int | None) -> tuple[int, int]:
    """A range as a slice of Python has it."""
    begin, stop, _ = slice(start, end).indices(size)
    return begin, max(begin, stop)


def _described(tree: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """An entry as fsspec has it."""
    name = f"{tree['object']}/{entry['path']}".rstrip("/")
    kept = {"object": tree["name"], "manifest": tree["manifest"], "created": tree["created"]}
    if entry["kind"] != "file":
        return {**_directory(name), **kept}
    return {
        "name": name,
        "size": entry["size"],
        "type": "file",
        **kept,
        "chunk_size": tree["chunk_size"],
        "number": entry["number"],
        "origin": entry["origin"],
    }


def _directory(path: str) -> dict[str, Any]:
    return {"name": path, "size": 0, "type": "directory"}


def _missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
