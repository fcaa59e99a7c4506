"""A get of some files of an object, of one, or of a range of it: whole and verified at their destination."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace

from engine.memory.file_spans import FileSpan
from p2pstore.cluster.versions import look_up
from p2pstore.errors import MetadataRefused, MetadataUnavailable, MooncakeError
from p2pstore.holding.part_table import KeptPart
from p2pstore.holding.parts import Parts
from p2pstore.holding.same_content import same_content
from p2pstore.objects.chosen import choose
from p2pstore.objects.manifest import Manifest
from p2pstore.objects.reference import is_reference, parse_reference
from p2pstore.objects.repeats import Repeats, repeats_of
from p2pstore.pull.chosen_files import chosen_files
from p2pstore.pull.get import GetRequest, GetResult
from p2pstore.pull.part_end import PartEnd, get_part
from p2pstore.pull.pipeline import Pipeline
from p2pstore.pull.run import Emit
from p2pstore.pull.workplace import tidy
from p2pstore.tensors.files import TensorFiles
from p2pstore.tensors.plan import left_out


class ChosenEnd(PartEnd):
    """Files of the object at a path."""

    async def choose(self, get: Pipeline) -> TensorFiles:
        """See ``PartEnd.choose``. Raises ``NotInObject`` and ``UsageError``."""
        return await get.in_thread(chosen_files, get.manifest, self._request.choice, self._request.name)

    async def is_done(self, get: Pipeline) -> bool:
        """See ``PartEnd.is_done``: of a range nobody has told the hash."""
        shape, dest = self.wanted.shape, self.dest
        if self._request.choice.range is not None or not await asyncio.to_thread(os.path.lexists, dest):
            return False
        get.note(f"{dest} exists; comparing it with the object")
        get.steps.begin("comparing", shape.size, "B")
        spans = await get.in_thread(same_content, dest, shape, get.cancelled, get.steps.add)
        if spans is None:
            return False
        get.brought.reused = shape.size
        if not self._request.dry_run:
            await asyncio.to_thread(tidy, dest, shape.digest)
            await self.hold(get, spans)
        return True

    async def hold(self, get: Pipeline, spans: Sequence[FileSpan]) -> None:
        """See ``End.hold``: whole files are passed on, though they are not all of the object."""
        await super().hold(get, spans)
        request = self._request
        if not request.seed or request.choice.range is not None:
            return
        numbers = choose(get.manifest, request.choice, request.name).numbers
        kept = KeptPart(get.resolved.record, get.manifest, self.dest, numbers, spans)
        self.seeding = await self._parts.part_copies.serve(kept, get.note)

    def repeats(self, manifest: Manifest) -> Repeats:
        """See ``End.repeats``: zeros need not be moved; what else repeats may repeat what is not wanted."""
        others = left_out(manifest, self.wanted.pieces)
        return Repeats([number for number in repeats_of(manifest).zeros if number not in others])


async def get_chosen(parts: Parts, request: GetRequest, emit: Emit) -> GetResult:
    """Bring what is chosen of an object to a path. Raises as ``ChosenEnd`` and ``get_files``."""
    return await get_part(parts, ChosenEnd(parts, request), request, emit)


async def located(parts: Parts, request: GetRequest) -> GetRequest:
    """The same request, its name split where it goes on with a path in the object.

    The longest name that there is counts. Where none is, or nobody can say so now, the name stays as it is, and the
    get finds out.
    """
    text = request.name.rstrip("/") if "/" in request.name else request.name
    words = text.split("/")
    candidates = ["/".join(words[:count]) for count in range(len(words), 0, -1)]
    names = [name for name in candidates if is_reference(name)]
    for name in [text] if names == [text] else await _known(parts, names, request.peers):
        inside = text[len(name) + 1 :]
        if not inside:
            return replace(request, name=name)
        return replace(request, name=name, choice=replace(request.choice, inside=inside))
    return request


async def _known(parts: Parts, names: list[str], peers: tuple[str, ...]) -> list[str]:
    """Those of the names that the metadata store or the peers know, in this order."""
    meant = {name: parse_reference(name) for name in names}
    found: set[str] = set()
    try:
        found.update(await parts.registry.find_all([name for name in names if meant[name].plain]))
        for name in names:
            if not meant[name].plain and await look_up(parts.registry, meant[name]) is not None:
                found.add(name)
    except (MetadataUnavailable, MetadataRefused):
        if not peers:
            return []
    for name in names:
        if name in found:
            return [name]
        for peer in peers:
            try:
                await parts.client.name(peer, meant[name].name)
            except MooncakeError:
                continue
            return [name]
    return []
