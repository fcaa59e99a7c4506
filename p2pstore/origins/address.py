"""Where an object is read from that the cluster has not yet, as people write it. Pure.

``hf://ORG/NAME[@REVISION]``, ``https://HOST/PATH``, ``s3://BUCKET/KEY``, ``file:///PATH``.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from p2pstore.errors import UsageError
from p2pstore.hub.origin import SCHEME, HubOrigin
from p2pstore.hub.origin import parse_origin as parse_hub

WEB = ("https", "http")
FILE = "file"
S3 = "s3"
FORMS = "hf://ORG/NAME[@REVISION], https://HOST/PATH, s3://BUCKET/KEY or file:///PATH"

SECRET_PARAMETERS = frozenset({"x-amz-signature", "x-goog-signature", "signature", "sig"})
"""Of a query: whoever has such a URL may read what it leads to."""


@dataclass(frozen=True)
class Place:
    """A file outside the cluster, or several below one path. ``url`` is as it was written."""

    scheme: str
    url: str

    @property
    def path(self) -> str:
        """The decoded path; of S3 bucket and key, in which nothing is encoded."""
        if self.scheme == S3:
            return self.url.partition("://")[2]
        return unquote(urlsplit(self.url).path)

    @property
    def name(self) -> str:
        """What its object is called, unless somebody says otherwise."""
        return self.path.rstrip("/").rpartition("/")[2]

    def __str__(self) -> str:
        """For people and logs: without a query, in which secrets may be."""
        if self.scheme == S3:
            return self.url
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
        where = "~/.aws/credentials" if parts.scheme == S3 else "~/.netrc"
        raise UsageError(detail=f"others see a user or password in a URL; write them to {where} of the agent's user")
    _check(place)
    return place


def _check(place: Place) -> None:
    """Raise ``UsageError`` for what names nothing, or tells what others should not see."""
    parts = urlsplit(place.url)
    if parts.scheme not in {*WEB, FILE, S3}:
        raise UsageError(detail=f"{str(place)!r} is no origin that is known here; {FORMS} is one")
    if parts.scheme == S3:
        if not parts.netloc or "\0" in place.url:
            raise UsageError(detail=f"{place.url!r} names no bucket; write it as s3://BUCKET/KEY")
        return
    if any(key.lower() in SECRET_PARAMETERS for key, _ in parse_qsl(parts.query)):
        raise UsageError(detail=f"{place} is signed: whoever sees it may read it; let the agent's user log in instead")
    if parts.scheme == FILE:
        if parts.netloc not in {"", "localhost"} or not parts.path.strip("/") or "\0" in place.path:
            raise UsageError(detail=f"{str(place)!r} names no file of this machine; write it as file:///PATH")
    elif not parts.hostname:
        raise UsageError(detail=f"{str(place)!r} names no host; write it as https://HOST/PATH")
