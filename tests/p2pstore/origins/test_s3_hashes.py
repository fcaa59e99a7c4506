"""What an S3 store says of hashes, and which of them can be compared."""

from __future__ import annotations

from typing import Any

import pytest

from p2pstore.origins.s3_hashes import hashes_of, part_size, parts_of

MD5 = "0123456789abcdef0123456789abcdef"
SHA256 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


@pytest.mark.parametrize(
    ("told", "hashes"),
    [
        ({"ETag": f'"{MD5}"'}, (("md5", MD5),)),
        ({"ETag": f'"{MD5}-3"'}, ()),
        ({"ETag": f'"{MD5}"', "ServerSideEncryption": "AES256"}, (("md5", MD5),)),
        ({"ETag": f'"{MD5}"', "ServerSideEncryption": "aws:kms"}, ()),
        ({"ETag": f'"{MD5}"', "SSECustomerAlgorithm": "AES256"}, ()),
        ({"ETag": '"nothing"'}, ()),
        ({"ChecksumSHA256": SHA256}, (("sha256", "00" * 32),)),
        ({"ChecksumSHA256": f"{SHA256}-2"}, ()),
        ({"ChecksumSHA256": "AAAA"}, ()),
        ({"ChecksumCRC32": "NSRBwg=="}, (("crc32", "352441c2"),)),
        ({"ChecksumCRC32": "NSRBwg==-2"}, ()),
        ({"ChecksumCRC32": "NSRBwg==", "ETag": f'"{MD5}"'}, (("md5", MD5),)),
    ],
)
def test_which_hashes_are_of_all_of_it(told: dict[str, str], hashes: tuple[tuple[str, str], ...]) -> None:
    assert hashes_of(told) == hashes


def test_those_of_parts_count_where_their_size_is_known() -> None:
    told = {"ETag": f'"{MD5}-3"', "ChecksumSHA256": f"{SHA256}-3"}
    assert parts_of(told) == 3
    assert hashes_of(told, 8) == (
        ("sha256 of parts of 8 bytes", "00" * 32 + "-3"),
        ("md5 of parts of 8 bytes", f"{MD5}-3"),
    )
    assert hashes_of(told) == ()
    assert parts_of({"ETag": f'"{MD5}"'}) == parts_of({}) == 0


@pytest.mark.parametrize(
    ("size", "first", "found"),
    [
        (17, {"ContentLength": 8, "PartsCount": 3}, 8),
        (24, {"ContentLength": 8, "PartsCount": 3}, 8),
        (25, {"ContentLength": 8, "PartsCount": 3}, 0),
        (16, {"ContentLength": 8, "PartsCount": 3}, 0),
        (17, {"ContentLength": 8, "PartsCount": 2}, 0),
        (17, {"ContentLength": 17}, 0),  # a store that has no parts tells of all of it
        (0, {"ContentLength": 0, "PartsCount": 3}, 0),
    ],
)
def test_how_long_parts_are(size: int, first: dict[str, Any], found: int) -> None:
    assert part_size({"ContentLength": size, "ETag": f'"{MD5}-3"'}, first) == found
