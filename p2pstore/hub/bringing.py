"""A repository of the hub, brought as a whole to be registered: each file by the mirror, then a directory of them.

Of nodes that bring the same one together each reads some of its files from the hub, and gets the others from those.
Files that came stay when it is interrupted, so that the next attempt goes on from there. The directory is made of links
to the files that the mirror keeps, so that nothing lies there twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from p2pstore.errors import OriginRefused, UsageError
from p2pstore.hub.documents import RepoFile
from p2pstore.hub.hub import Hub
from p2pstore.hub.layout import lay_out
from p2pstore.hub.mirror import MirroredRepo
from p2pstore.hub.origin import HubOrigin
from p2pstore.hub.repos import RepoNotFound, RevisionNotFound
from p2pstore.hub.upstream import UpstreamRefused
from p2pstore.objects.chosen import takes
from p2pstore.objects.names import tree_fault
from p2pstore.objects.selection import Selection
from p2pstore.objects.steps import Steps
from p2pstore.objects.waiting import together

AT_ONCE = 4
"""Files that are brought at a time."""


async def bring(hub: Hub, origin: HubOrigin, name: str, selection: Selection, steps: Steps) -> tuple[Path, str]:
    """Have what ``selection`` takes of a repository here: the directory where it lies, and the commit.

    Raises ``UsageError`` where no hub is known, ``OriginRefused``, ``OriginUnavailable``, ``OriginDiffers``,
    ``StorageError``, and as a get. Cancelling stops it, and the reading of files that nobody else waits for.
    """
    steps.begin("asking the hub")
    try:
        repo = await hub.mirror.find(origin.route)
    except RepoNotFound:
        if not hub.mirror.reads_hub:
            detail = "this agent reads no hub: set hf_upstream, as to https://huggingface.co, and start it again"
            raise UsageError(detail=detail) from None
        raise OriginRefused(origin=origin, detail="there is no such repository") from None
    except RevisionNotFound:
        raise OriginRefused(origin=origin, detail=f"it has no revision {origin.revision!r}") from None
    except UpstreamRefused as error:  # of which commands know nothing
        raise OriginRefused(**error.fields) from None
    files = [file for file in repo.listing.files if takes(selection, file.path)]
    if not files:
        raise OriginRefused(origin=origin, detail="none of its files is taken")
    fault = tree_fault(sorted(file.path for file in files), ())
    if fault:
        raise OriginRefused(origin=origin, detail=f"what it says of its files cannot be: {fault}")
    steps.begin("bringing", sum(file.size for file in files), "B")
    places = await _all(hub, origin, repo, files, steps)
    steps.begin("laying out", len(files), "files")
    tree = {file.path: places.get(file.oid) if file.size else None for file in files}
    directory = await asyncio.to_thread(lay_out, hub.parts.options.kept, name, repo.commit, tree, steps)
    return directory, repo.commit


async def _all(
    hub: Hub, origin: HubOrigin, repo: MirroredRepo, files: list[RepoFile], steps: Steps
) -> Mapping[str, Path]:
    """Where each file lies here, by its name by content."""
    wanted = {file.oid: file for file in files if file.size}
    works = [partial(hub.mirror.have, origin.route, repo, file, steps.add) for file in wanted.values()]
    try:
        places = await together(works, at_once=AT_ONCE, name=f"bringing of {origin}")
    except UpstreamRefused as error:
        raise OriginRefused(**error.fields) from None
    return dict(zip(wanted, places, strict=True))
