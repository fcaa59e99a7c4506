"""How people say which content of a name they mean: ``NAME``, or ``NAME@sha256:DIGEST`` as in OCI tools. Pure.

The digest is the manifest's, the object's identity. Its beginning is enough where no other version of the object has
the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from p2pstore.errors import BadName, BadReference
from p2pstore.objects.names import check_object_name

ALGORITHM = "sha256"
"""What a manifest is hashed with; it may be left out."""

DIGEST_DIGITS = 64
"""Of a whole digest, in hexadecimal."""

_DIGEST = re.compile(rf"(?:{ALGORITHM}:)?([0-9a-f]{{1,{DIGEST_DIGITS}}})", re.IGNORECASE)


@dataclass(frozen=True)
class Reference:
    """A name, and which content of it is meant: that with a digest that begins so; without one, the newest."""

    name: str
    digest: str = ""

    @property
    def plain(self) -> bool:
        """Whether it is a name alone."""
        return not self.digest

    def __str__(self) -> str:
        return f"{self.name}@{ALGORITHM}:{self.digest}" if self.digest else self.name

    def fits(self, name: str, digest: str) -> bool:
        """Whether content of that name and manifest digest may be meant."""
        return name == self.name and digest.startswith(self.digest)


def parse_reference(text: str) -> Reference:
    """What ``text`` means. Raises ``BadName``, and ``BadReference`` for what follows the name."""
    if not isinstance(text, str):
        raise BadName(name=text, detail="it is not text")
    name, at, digest = text.partition("@")
    if not at:
        return Reference(check_object_name(text))
    check_object_name(name)
    found = _DIGEST.fullmatch(digest)
    if found is None:
        raise BadReference(name=name, reference=text, detail=_fault(digest))
    return Reference(name, found[1].lower())


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
