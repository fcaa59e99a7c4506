"""Origins as people write them."""

from __future__ import annotations

import pytest

from p2pstore.errors import UsageError
from p2pstore.hub.origin import HubOrigin, is_origin, parse_origin


@pytest.mark.parametrize(
    ("text", "origin", "name"),
    [
        ("hf://org/n", HubOrigin("models", "org/n"), "org/n"),
        ("hf://gpt2", HubOrigin("models", "gpt2"), "gpt2"),
        ("hf://org/n@v1.0", HubOrigin("models", "org/n", "v1.0"), "org/n"),
        ("hf://org/n@refs/pr/1", HubOrigin("models", "org/n", "refs/pr/1"), "org/n"),
        ("hf://datasets/org/d", HubOrigin("datasets", "org/d"), "datasets/org/d"),
        ("hf://models/org/n", HubOrigin("models", "org/n"), "org/n"),
    ],
)
def test_what_is_meant(text: str, origin: HubOrigin, name: str) -> None:
    found = parse_origin(text)
    assert (found, found.name) == (origin, name)
    assert parse_origin(str(found)) == found


@pytest.mark.parametrize("text", ["hf://", "hf://org/n@", "hf://a/b/c", "hf://../n", "hf://org/n x", "ftp://x/y"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_origin(text)


def test_what_is_written_like_one() -> None:
    assert is_origin("hf://x")
    assert is_origin("s3://bucket")
    assert not is_origin("./hf:/x")
    assert not is_origin("/a/b")
    assert not is_origin("c:/x")
