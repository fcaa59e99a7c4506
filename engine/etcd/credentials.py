"""Who we are to etcd."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class EtcdCredentials:
    """User, password, and the paths of PEM files: the CA to trust, our certificate chain and its key.

    All are optional; certificates matter with ``etcds://`` only. The password never shows in a ``repr``.
    """

    user: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""
    cert: str = ""
    key: str = ""
