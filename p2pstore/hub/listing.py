"""What the real hub says of a repository, as it is kept in the cluster: the files of one commit. Pure.

A listing is an object of its own, and so is the content of each file, by its name: what one node has read from the hub
others get from it, though they cannot reach the hub.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from p2pstore.hub.documents import RepoFile, is_commit
from p2pstore.objects.names import is_object_name, tree_fault
from p2pstore.objects.oid import GIT, SHA256, is_oid

ROOT = "hf"
"""What the names of such objects begin with."""

MAX_LISTING_BYTES = 64 << 20
"""Of a listing: some hundred thousand files."""

_FORMAT = "mooncake.hub.v1"


@dataclass(frozen=True)
class Listing:
    """The files of a commit of the hub's. ``modified`` is in seconds since the epoch."""

    commit: str
    modified: float
    files: tuple[RepoFile, ...]
    ways: tuple[str, ...]
    """How each file's ``oid`` was made."""

    @property
    def paths(self) -> Sequence[str]:
        """The files' paths."""
        return [file.path for file in self.files]

    def to_bytes(self) -> bytes:
        """As it is kept: the same for everybody."""
        entries = [[f.path, f.size, way, f.oid] for f, way in zip(self.files, self.ways, strict=True)]
        document = {"commit": self.commit, "files": entries, "format": _FORMAT, "modified": self.modified}
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def parse_listing(data: bytes) -> Listing:
    """The inverse of ``to_bytes``. Raises ``ValueError`` for what is none."""
    try:
        document = json.loads(data)
        if document["format"] != _FORMAT or not is_commit(document["commit"]):
            raise ValueError("no listing of a commit")
        entries = [(str(path), int(size), str(way), str(oid)) for path, size, way, oid in document["files"]]
        modified = float(document["modified"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no listing: {error!r}") from None
    for _, size, way, oid in entries:
        if size < 0 or way not in {GIT, SHA256} or not is_oid(oid, way):
            raise ValueError("a file without a name")
    fault = paths_fault([path for path, _, _, _ in entries])
    if fault:
        raise ValueError(fault)
    files = tuple(RepoFile(path, size, oid, lfs=way == SHA256) for path, size, way, oid in entries)
    return Listing(str(document["commit"]), modified, files, tuple(way for _, _, way, _ in entries))


def paths_fault(paths: Sequence[str]) -> str:
    """Why these cannot be the paths of a repository, in a few words; empty when they can. Clients write files so."""
    return tree_fault(sorted(paths), ())


def blob_name(oid: str) -> str:
    """The name of the object that is a file's content."""
    return f"{ROOT}/blobs/{oid}"


def listing_names(kind: str, repo: str, revision: str, commit: str) -> list[str]:
    """The names of a listing: by its commit, and by the revision that was asked for, if an object may be called so."""
    names = [listing_name(kind, repo, commit)]
    if not is_commit(revision):
        names.append(listing_name(kind, repo, revision))
    return [name for name in names if is_object_name(name)]


def listing_name(kind: str, repo: str, revision: str) -> str:
    """The name of the listing of a revision; none that an object may have where the revision has odd characters."""
    return f"{ROOT}/{kind}/{repo}/{'commits' if is_commit(revision) else 'refs'}/{revision}"
