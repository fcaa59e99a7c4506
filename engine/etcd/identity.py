"""Our credentials as they are now: what stands in files is read again when it changes. Belongs to one event loop."""

from __future__ import annotations

from pathlib import Path

from engine.config.again import Renewed
from engine.config.secret_file import read_secret
from engine.errors import BadConfig
from engine.etcd.credentials import EtcdCredentials

Pem = tuple[bytes | None, bytes | None, bytes | None]
"""The CA's certificates, our key, and our certificate chain, in PEM; None for what there is none of."""


class Identity:
    """Who we are to one etcd, over TLS and as a user. Nothing is read before it is asked for."""

    def __init__(self, credentials: EtcdCredentials) -> None:
        self.user = credentials.user
        self._credentials = credentials
        self._pem: Renewed[Pem] | None = None
        self._password: Renewed[str] | None = None

    async def pem(self) -> Pem:
        """What TLS takes. Raises ``BadConfig`` for a file that cannot be read at first."""
        if self._pem is None:
            c = self._credentials
            self._pem = Renewed([Path(file) for file in (c.ca, c.key, c.cert) if file], self._read_pem)
        return await self._pem.current()

    async def password(self) -> str:
        """The user's password. Raises ``BadConfig`` as ``pem``."""
        file = self._credentials.password_file
        if not file:
            return self._credentials.password
        if self._password is None:
            self._password = Renewed([Path(file)], lambda: _read_password(Path(file)))
        return await self._password.current()

    def _read_pem(self) -> Pem:
        c = self._credentials
        return _read(c.ca, "CA file"), _read(c.key, "key file"), _read(c.cert, "certificate file")


def _read(path: str, what: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadConfig(origin=f"etcd's {what}", detail=f"{path}: {error.strerror}") from error


def _read_password(file: Path) -> str:
    return read_secret(file, "etcd's password").decode("utf-8", "surrogateescape")
