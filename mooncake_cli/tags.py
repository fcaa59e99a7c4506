"""What people are told of tags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mooncake_cli.text import printable, short_digest


def moved(name: str, digest: str, tags: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """A line for each tag that was made to lead to a version: whether it is new, and where it led before."""
    for each in tags:
        tagged, before = printable(f"{name}:{each['tag']}"), each["before"]
        if not before:
            yield f"{tagged} is {short_digest(digest)}"
        elif before == digest:
            yield f"{tagged} is {short_digest(digest)}, as it was"
        else:
            yield f"{tagged} is {short_digest(digest)}, and was {short_digest(before)}"
