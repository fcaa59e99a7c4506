"""Where an object is read from that the cluster has not yet, as people write it. Pure.

``hf://ORG/NAME[@REVISION]``, ``https://HOST/PATH``, ``file:///PATH``.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from p2pstore.errors import UsageError
from p2pstore.hub.origin import SCHEME, HubOrigin
from p2pstore.hub.origin import parse_origin as parse_hub

WEB = ("https", "http")
FILE = "file"
FORMS = "hf://ORG/NAME[@REVISION], https://HOST/PATH or file:///PATH"

SECRET_PARAMETERS = frozenset({"x-amz-signature", "x-goog-signature", "signature", "sig"})
"""Of a query: whoever has such a URL may read what it leads to."""


@dataclass(frozen=True)
class Place:
    """A file outside the cluster, or a directory of them. ``url`` is as it was written."""

    scheme: str
    url: str

    @property
    def path(self) -> str:
        """The decoded path."""
        return unquote(urlsplit(self.url).path)

    @property
    def name(self) -> str:
        """What its object is called, unless somebody says otherwise."""
        return self.path.rstrip("/").rpartition("/")[2]

    def __str__(self) -> str:
        """For people and logs: without a query, in which secrets may be."""
        return urlsplit(self.url)._replace(query="", fragment="").geturl()


def parse_origin(text: str) -> HubOrigin | Place:
    """The origin that a text means. Raises ``UsageError``."""
    if text.startswith(SCHEME):
        return parse_hub(text)
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise UsageError(detail="that is no URL that can be read: its host or port is none") from None
    place = Place(parts.scheme, text)
    if "@" in parts.netloc:
        raise UsageError(detail="others see a user or password in a URL; write them to ~/.netrc of the agent's user")
    if parts.scheme not in {*WEB, FILE}:
        raise UsageError(detail=f"{str(place)!r} is no origin that is known here; {FORMS} is one")
    if any(key.lower() in SECRET_PARAMETERS for key, _ in parse_qsl(parts.query)):
        raise UsageError(detail=f"{place} is signed: whoever sees it may read it; let the agent's user log in instead")
    if parts.scheme == FILE:
        if parts.netloc not in {"", "localhost"} or not parts.path.strip("/") or "\0" in place.path:
            raise UsageError(detail=f"{str(place)!r} names no file of this machine; write it as file:///PATH")
    elif not parts.hostname:
        raise UsageError(detail=f"{str(place)!r} names no host; write it as https://HOST/PATH")
    return place
