"""Who we are to etcd, as the files have it now."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import again
from engine.errors import BadConfig
from engine.etcd.credentials import EtcdCredentials
from engine.etcd.identity import Identity


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "LOOK_SECONDS", 0.0)


async def test_nothing_was_given() -> None:
    identity = Identity(EtcdCredentials())
    assert await identity.pem() == (None, None, None)
    assert await identity.password() == ""


async def test_certificates_are_read_again(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("ca", "key", "cert")}
    for name, file in files.items():
        file.write_text(name)
    identity = Identity(EtcdCredentials(**{name: str(file) for name, file in files.items()}))
    assert await identity.pem() == (b"ca", b"key", b"cert")
    files["key"].write_text("another key")
    assert await identity.pem() == (b"ca", b"another key", b"cert")
    files["ca"].unlink()
    assert await identity.pem() == (b"ca", b"another key", b"cert")


async def test_a_password_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"one\n")
    identity = Identity(EtcdCredentials(user="u", password="one", password_file=str(file)))
    assert await identity.password() == "one"
    file.write_bytes(b"two\n")
    assert await identity.password() == "two"


async def test_a_password_that_was_given_stays() -> None:
    assert await Identity(EtcdCredentials(user="u", password="p")).password() == "p"


async def test_files_that_cannot_be_read_at_first(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(BadConfig, match=r"etcd's CA file: .*missing: No such file"):
        await Identity(EtcdCredentials(ca=missing)).pem()
    with pytest.raises(BadConfig, match=r"etcd's password: secret file .*missing cannot be read"):
        await Identity(EtcdCredentials(user="u", password_file=missing)).password()
