"""How people say which content of a name they mean, as in OCI tools: ``NAME[:TAG][@sha256:DIGEST]``. Pure.

The digest is the manifest's, the object's identity. Its beginning is enough where no other version of the object has
the same. A tag is a name that people gave to a version, and may move to another one; beside a digest it counts for
nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from p2pstore.errors import BadName, BadReference, BadTag
from p2pstore.objects.names import check_object_name

ALGORITHM = "sha256"
"""What a manifest is hashed with; it may be left out."""

DIGEST_DIGITS = 64
"""Of a whole digest, in hexadecimal."""

SHOWN_DIGITS = 12
"""Of a digest, for people."""

MAX_TAG = 128
"""Characters of a tag, as OCI's."""

_TAG = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{MAX_TAG - 1}}}")
_DIGEST = re.compile(rf"(?:{ALGORITHM}:)?([0-9a-f]{{1,{DIGEST_DIGITS}}})", re.IGNORECASE)


@dataclass(frozen=True)
class Reference:
    """A name, and which content of it is meant: that with a digest that begins so, that of a tag, or the newest."""

    name: str
    digest: str = ""
    tag: str = ""

    @property
    def plain(self) -> bool:
        """Whether it is a name alone."""
        return not self.digest and not self.tag

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}@{ALGORITHM}:{self.digest}" if self.digest else self.name + tag

    def fits(self, name: str, digest: str) -> bool:
        """Whether content of that name and manifest digest may be meant, as far as the digest tells."""
        return name == self.name and digest.startswith(self.digest)


def parse_reference(text: str) -> Reference:
    """What ``text`` means. Raises ``BadName``, and ``BadTag`` or ``BadReference`` for what follows the name."""
    if not isinstance(text, str):
        raise BadName(name=text, detail="it is not text")
    head, at, digest = text.partition("@")
    name, colon, tag = head.partition(":")
    check_object_name(name)
    if colon:
        check_tag(tag)
    if not at:
        return Reference(name, tag=tag)
    found = _DIGEST.fullmatch(digest)
    if found is None:
        raise BadReference(name=name, reference=text, detail=_fault(digest))
    return Reference(name, found[1].lower(), tag)


def check_tag(tag: str) -> str:
    """Return ``tag`` if a version may be called so, else raise ``BadTag``."""
    if not isinstance(tag, str):
        raise BadTag(tag=tag, detail="it is not text")
    if not tag or len(tag) > MAX_TAG:
        raise BadTag(tag=tag, detail="it is empty" if not tag else f"it is longer than {MAX_TAG} characters")
    if not _TAG.fullmatch(tag):
        first = tag[0] in ".-"
        raise BadTag(
            tag=tag, detail=f"it begins with {tag[0]!r}" if first else "it has a character that is not allowed"
        )
    return tag


def _fault(digest: str) -> str:
    algorithm, colon, digits = digest.rpartition(":")
    if colon and algorithm.lower() != ALGORITHM:
        return f"digests are of {ALGORITHM}, not of {algorithm}"
    if len(digits) > DIGEST_DIGITS:
        return f"a digest has {DIGEST_DIGITS} digits, and this has {len(digits)}"
    return "the digest is missing" if not digits else "its digest is not hexadecimal"


def is_reference(text: str) -> bool:
    """Whether it can mean an object, or a version of one."""
    try:
        parse_reference(text)
    except BadName:
        return False
    return True
