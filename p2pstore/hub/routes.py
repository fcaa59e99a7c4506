"""What the path of a request asks for, as the hub's clients write it. Pure.

::

    /api/models/ID[/revision/REV]          what the repository is, and its files
    /api/models/ID/tree/REV[/PATH]         its files, with sizes and hashes
    /api/models/ID/paths-info/REV          the same of some paths
    /api/models/ID/refs                    its branches and tags
    /ID/resolve/REV/FILE                   one file

ID is ``NAME`` or ``ORG/NAME``. Of other kinds of repository the kind comes before it, as in ``/api/datasets/ID`` and
``/datasets/ID/resolve/..``; it is then the beginning of the object's name.

Source: https://huggingface.co/docs/hub/api, and what huggingface_hub 2.4.0 asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

MODELS = "models"
"""The kind that is not written in the path of a file."""

KINDS = (MODELS, "datasets", "spaces", "kernels")

DEFAULT_REVISION = "main"

MAX_ID_PARTS = 2
"""Of a repository's id: ``ORG/NAME``."""

_VERBS = frozenset({"revision", "tree", "paths-info", "refs", "resolve"})


@dataclass(frozen=True)
class Route:
    """``verb`` is what is asked of a repository: ``info``, ``tree``, ``paths-info``, ``refs`` or ``resolve``.

    ``kind`` and ``repo`` are as the hub has them. ``path`` is one inside the repository, or empty.
    """

    verb: str
    kind: str
    repo: str
    revision: str = DEFAULT_REVISION
    path: str = ""

    @property
    def name(self) -> str:
        """The name of the object that is this repository."""
        return self.repo if self.kind == MODELS else f"{self.kind}/{self.repo}"


def parse(raw_path: str) -> Route | None:
    """What a path asks for, with its percent signs as they came; None for one that is none of these."""
    parts = [unquote(part) for part in raw_path.partition("?")[0].strip("/").split("/")]
    if parts[0] == "api":
        return _of_api(parts[1:])
    kind = MODELS
    if parts[0] in KINDS and parts[0] != MODELS and "resolve" in parts[2:]:
        kind, parts = parts[0], parts[1:]
    found = _split(parts)
    if found is None or found[1] != "resolve" or len(found[2]) < 2:
        return None
    repo, verb, rest = found
    return Route(verb, kind, repo, rest[0], "/".join(rest[1:]))


def _of_api(parts: Sequence[str]) -> Route | None:
    if len(parts) < 2 or parts[0] not in KINDS:
        return None
    kind, rest = parts[0], parts[1:]
    found = _split(rest)
    if found is None:
        return Route("info", kind, "/".join(rest)) if len(rest) <= MAX_ID_PARTS else None
    repo, verb, after = found
    if verb == "refs":
        return Route("refs", kind, repo) if not after else None
    if verb == "resolve" or not after or (verb != "tree" and len(after) > 1):
        return None
    return Route("info" if verb == "revision" else verb, kind, repo, after[0], "/".join(after[1:]))


def _split(parts: Sequence[str]) -> tuple[str, str, Sequence[str]] | None:
    """The repository's id, the verb after it, and what comes then; an ``ORG/NAME`` may itself be called like a verb."""
    for count in range(1, MAX_ID_PARTS + 1):
        if len(parts) > count and parts[count] in _VERBS:
            return "/".join(parts[:count]), parts[count], parts[count + 1 :]
    return None
