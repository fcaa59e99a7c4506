from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.errors import BadConfig
from p2pstore.settings.files import MAX_FILE_BYTES, read_file, user_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mooncake.toml"


def test_the_users_file_is_where_xdg_says_if_that_says_anything() -> None:
    assert user_file({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}) == Path("/x/mooncake/config.toml")
    for given_ in ({}, {"XDG_CONFIG_HOME": ""}, {"XDG_CONFIG_HOME": "relative"}):
        assert user_file({"HOME": "/h", **given_}) == Path("/h/.config/mooncake/config.toml")


def test_values_are_parsed_and_paths_start_from_the_file(file: Path) -> None:
    file.write_text('zone = "z"\nlease_ttl = 30\ninsecure = true\nsecret_file = "s"\nupload_limit = "1MB/s"\n')
    assert read_file(file, required=True) == {
        "zone": "z",
        "lease_ttl": 30,
        "insecure": True,
        "secret_file": file.parent / "s",
        "upload_limit": 1_000_000,
    }


def test_a_file_that_is_not_there(file: Path) -> None:
    for path in (file, file / "below"):
        assert read_file(path, required=False) == {}
        with pytest.raises(BadConfig, match=r"mooncake\.toml.*: there is no such file"):
            read_file(path, required=True)
        file.write_text("")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("chunksize = 1", "unknown key 'chunksize'; did you mean chunk_size?"),
        ("chunk-size = 1", "did you mean chunk_size"),
        ("frobnicate = 1", "unknown key 'frobnicate'; the keys are home, metadata"),
        ('secret = "x"', "a secret is not written here; set MOONCAKE_SECRET, or name a file with secret_file"),
        ('etcd_password = "x"', "set MOONCAKE_ETCD_PASSWORD, or name a file with etcd_password_file"),
        ("lease_ttl = 1", ", lease_ttl: 1 is not between 2 and 3600"),
        ("[zone]\nx = 1", ", zone: a dict cannot be zone"),
        ("zone = 1979-05-27", ", zone: a date cannot be zone"),
        ("home = 5", ", home: it is a text; write it in quotes, not as 5"),
        ("zone = ", "it is not TOML"),
        ("lease_ttl = " + "9" * 5000, "it is not TOML"),
        ("zone = " + "[" * 100_000, "it is not TOML"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_not_understood_is_said_with_the_file(file: Path, text: str, complaint: str) -> None:
    file.write_text(text + "\n")
    with pytest.raises(BadConfig) as caught:
        read_file(file, required=False)
    assert str(caught.value).startswith(str(file))
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_file_may_be_so_long_and_no_longer(file: Path) -> None:
    file.write_bytes(b"#" * MAX_FILE_BYTES)
    assert read_file(file, required=True) == {}
    file.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(BadConfig, match=r"it is longer than 1\.0 MiB"):
        read_file(file, required=False)


def test_what_is_no_readable_file(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(BadConfig, match="it is not TOML"):
        read_file(file, required=False)
    file.unlink()
    file.mkdir()
    with pytest.raises(BadConfig, match="it cannot be read"):
        read_file(file, required=False)


@given(st.binary(max_size=40) | st.text(alphabet='zone= [{"1.\n', max_size=20).map(str.encode))
def test_any_file_is_read_or_bad(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(data)
    with contextlib.suppress(BadConfig):
        read_file(path, required=True)
