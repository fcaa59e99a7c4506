"""Origins as people write them."""

from __future__ import annotations

import pytest

from p2pstore.errors import UsageError
from p2pstore.hub.origin import HubOrigin
from p2pstore.origins.address import Place, parse_origin


@pytest.mark.parametrize(
    ("text", "name", "path", "shown"),
    [
        ("https://h.example/a/m.tar", "m.tar", "/a/m.tar", "https://h.example/a/m.tar"),
        ("http://127.0.0.1:80/m%20m?x=1#y", "m m", "/m m", "http://127.0.0.1:80/m%20m"),
        ("s3://bucket/a/m 1%20?x#y", "m 1%20?x#y", "bucket/a/m 1%20?x#y", "s3://bucket/a/m 1%20?x#y"),
        ("s3://bucket", "bucket", "bucket", "s3://bucket"),
        ("file:///data/llama/", "llama", "/data/llama/", "file:///data/llama/"),
        ("file://localhost/data", "data", "/data", "file://localhost/data"),
    ],
)
def test_what_is_meant(text: str, name: str, path: str, shown: str) -> None:
    found = parse_origin(text)
    assert isinstance(found, Place)
    assert (found.url, found.name, found.path, str(found)) == (text, name, path, shown)


def test_a_repository_of_the_hub() -> None:
    assert parse_origin("hf://org/n@v1") == HubOrigin("models", "org/n", "v1")


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "ftp://x/y",
        "https://",
        "https:///x",
        "https://h:x/",
        "file://host/x",
        "s3://",
        "s3:///x",
        "file:///",
        "file:///a%00",
        "x://[",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_origin(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://me:geheim@h.example/x",
        "s3://AKIA:geheim@bucket/x",
        "ftp://me:geheim@h.example/x",
        "https://h.example/x?X-Amz-Signature=geheim",
        "https://h.example/x?sig=geheim&a=b",
        "ftp://h.example/x?token=geheim",
    ],
)
def test_secrets_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_origin(text)
    assert "geheim" not in str(refused.value)
