"""Where an object is read from that the cluster has not yet, as people write it: ``hf://ORG/NAME[@REVISION]``. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from p2pstore.errors import UsageError
from p2pstore.hub.routes import DEFAULT_REVISION, KINDS, MAX_ID_PARTS, MODELS, Route

SCHEME = "hf://"

_ANY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class HubOrigin:
    """A repository of the hub at a revision; of other kinds than models ``kind`` is written before its id."""

    kind: str
    repo: str
    revision: str = DEFAULT_REVISION

    @property
    def route(self) -> Route:
        """As the hub is asked for it."""
        return Route("info", self.kind, self.repo, self.revision)

    @property
    def name(self) -> str:
        """What its object is called, unless somebody says otherwise."""
        return self.route.name

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision != DEFAULT_REVISION else ""
        return f"{SCHEME}{self.name}{at}"


def is_origin(text: str) -> bool:
    """Whether it is written like a place outside the cluster, and not like a path."""
    return _ANY.match(text) is not None


def parse_origin(text: str) -> HubOrigin:
    """The origin that a text means. Raises ``UsageError``."""
    if not text.startswith(SCHEME):
        raise UsageError(detail=f"{text!r} is no origin that is known here; hf://ORG/NAME[@REVISION] is one")
    rest, at, revision = text.removeprefix(SCHEME).partition("@")
    parts = rest.strip("/").split("/")
    kind = parts.pop(0) if parts[0] in KINDS and len(parts) > 1 else MODELS
    if len(parts) > MAX_ID_PARTS or not all(map(_PART.fullmatch, parts)):
        raise UsageError(detail=f"{text!r} names no repository; write it as hf://ORG/NAME or hf://datasets/ORG/NAME")
    if at and not revision:
        raise UsageError(detail=f"{text!r} ends with '@'; a branch, a tag or a commit comes after it")
    return HubOrigin(kind, "/".join(parts), revision or DEFAULT_REVISION)
