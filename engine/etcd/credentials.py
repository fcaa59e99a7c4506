"""Who we are to etcd."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class EtcdCredentials:
    """User, password, and the paths of PEM files: the CA to trust, our certificate chain and its key.

    ``password_file`` is the password's, where it may change; what stands in files is read again then. All are optional;
    certificates matter with ``etcds://`` only. The password never shows in a ``repr``.
    """

    user: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
