"""An origin's files, brought as a whole to be registered: each by ``Gathering``, then a directory of links to them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from p2pstore.errors import BadTag, OriginNotFound, OriginRefused
from p2pstore.hub.hub import Hub
from p2pstore.hub.layout import lay_out
from p2pstore.hub.origin import HubOrigin
from p2pstore.hub.upstream import UpstreamRefused
from p2pstore.objects.names import tree_fault
from p2pstore.objects.reference import check_tag
from p2pstore.objects.selection import Selection
from p2pstore.objects.steps import Steps
from p2pstore.objects.waiting import telling, together
from p2pstore.origins.address import FILE, S3, Place
from p2pstore.origins.gathering import Gathering
from p2pstore.origins.hub import HubSource
from p2pstore.origins.local import LocalSource
from p2pstore.origins.quiet import AGAIN_SECONDS, QUIET_SECONDS
from p2pstore.origins.s3 import S3Source
from p2pstore.origins.sections import revision
from p2pstore.origins.source import OriginFile, Source
from p2pstore.origins.web import WebSource

AT_ONCE = 4
"""Files that are brought at a time."""


def source_of(hub: Hub, origin: HubOrigin | Place) -> Source:
    """What reads an origin. Raises ``PackageMissing`` where a package is missing for that."""
    if isinstance(origin, HubOrigin):
        return HubSource(hub, origin)
    if origin.scheme == FILE:
        return LocalSource(origin, hub.parts.options.private)
    return S3Source(origin) if origin.scheme == S3 else WebSource(origin)


async def bring(
    gathering: Gathering, origin: HubOrigin | Place, name: str, selection: Selection, steps: Steps
) -> tuple[Path, str]:
    """Have what ``selection`` takes of an origin here: the file or directory where it lies, and its revision.

    Raises as ``Source.files``, ``Gathering.have`` and ``lay_out``. Cancelling stops it; what came stays.
    """
    try:
        return await _bring(gathering, origin, name, selection, steps)
    except UpstreamRefused as error:  # of which commands know nothing
        raise (OriginNotFound if error.status == 404 else OriginRefused)(**error.fields) from None


async def _bring(
    gathering: Gathering, origin: HubOrigin | Place, name: str, selection: Selection, steps: Steps
) -> tuple[Path, str]:

    def waits(seconds: float) -> None:
        steps.note(f"{origin} has not told what it has for {seconds:.0f} s; still waiting")

    source = await asyncio.to_thread(source_of, gathering.hub, origin)
    try:
        steps.begin("asking the origin")
        files = await telling(source.files(selection), waits, first=QUIET_SECONDS, again=AGAIN_SECONDS)
        if not files:
            raise OriginRefused(origin=origin, detail="none of its files is taken")
        fault = tree_fault(sorted(file.path for file in files), ()) if files[0].path else ""
        if fault:
            raise OriginRefused(origin=origin, detail=f"what it says of its files cannot be: {fault}")
        steps.begin("bringing", sum(file.size for file in files), "B")
        full = [file for file in files if file.size]
        works = [partial(gathering.have, source, str(origin), file, steps) for file in full]
        found = await together(works, at_once=AT_ONCE, name=f"bringing of {origin}")
        places: dict[str, Path | None] = {file.path: None for file in files}
        places |= {file.path: there for file, there in zip(full, found, strict=True)}
    finally:
        await source.close()
    steps.begin("laying out", len(files), "files")
    made = source.revision or _tag(files)
    return await asyncio.to_thread(lay_out, gathering.hub.parts.options.kept, name, made, places, steps), made


def _tag(files: Sequence[OriginFile]) -> str:
    """The revision of an origin as a tag: a file's ETag where that can be one."""
    if len(files) == 1 and not files[0].path and files[0].version.startswith('"'):
        try:
            return check_tag(files[0].version.strip('"'))
        except BadTag:
            pass
    return revision(files)
