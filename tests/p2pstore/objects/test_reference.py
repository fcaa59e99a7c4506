from __future__ import annotations

import pytest

from p2pstore.errors import BadName, BadReference, BadTag
from p2pstore.objects.reference import Reference, check_tag, is_reference, parse_reference

DIGEST = "3f786850e387550fdab836ed7e6dc881de23001b3f786850e387550fdab836ed"


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("models/llama-3", Reference("models/llama-3"), "models/llama-3"),
        (f"m@sha256:{DIGEST}", Reference("m", DIGEST), f"m@sha256:{DIGEST}"),
        ("a/b@sha256:3f7", Reference("a/b", "3f7"), "a/b@sha256:3f7"),
        ("m@3F78", Reference("m", "3f78"), "m@sha256:3f78"),
        ("m@SHA256:3F78", Reference("m", "3f78"), "m@sha256:3f78"),
        ("a/b:step-1000", Reference("a/b", tag="step-1000"), "a/b:step-1000"),
        ("m:v1@3f78", Reference("m", "3f78", "v1"), "m:v1@sha256:3f78"),
    ],
)
def test_what_is_meant(text: str, expected: Reference, shown: str) -> None:
    found = parse_reference(text)
    assert (found, str(found), found.plain) == (expected, shown, not {*"@:"} & {*text})
    assert parse_reference(shown) == found
    assert is_reference(text)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("m@", "the digest is missing"),
        ("m@sha256:", "the digest is missing"),
        ("m@sha256:xyz", "its digest is not hexadecimal"),
        ("m@sha512:3f78", "digests are of sha256, not of sha512"),
        (f"m@sha256:{DIGEST}0", "a digest has 64 digits, and this has 65"),
        ("m@3f78@3f78", "its digest is not hexadecimal"),
        ("m@3f78/x", "its digest is not hexadecimal"),
    ],
)
def test_what_is_no_digest(text: str, detail: str) -> None:
    with pytest.raises(BadReference, match=detail) as caught:
        parse_reference(text)
    assert "m@sha256:" in caught.value.hint
    assert not is_reference(text)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("m:", "it is empty"),
        ("m:a/b", "it has a character that is not allowed"),
        ("m:a:b", "it has a character that is not allowed"),
        ("m:-a", "it begins with '-'"),
        ("m:.a@3f78", "it begins with '.'"),
        ("m:é", "it has a character that is not allowed"),
        ("m:" + "a" * 129, "it is longer than 128 characters"),
    ],
)
def test_what_is_no_tag(text: str, detail: str) -> None:
    with pytest.raises(BadTag, match=detail):
        parse_reference(text)
    assert not is_reference(text)
    assert check_tag("a" * 128) == "a" * 128
    with pytest.raises(BadTag, match="it is not text"):
        check_tag(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", ":v1", "@3f78", "a b@3f78", "../a@3f78", "a//b", 7])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(BadName):
        parse_reference(text)
    assert not is_reference(text)


def test_what_fits() -> None:
    assert Reference("m").fits("m", DIGEST)
    assert Reference("m", "3f").fits("m", DIGEST)
    assert not Reference("m", "4f").fits("m", DIGEST)
    assert not Reference("n", "3f").fits("m", DIGEST)
