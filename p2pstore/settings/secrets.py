"""Whether a secret is one: long enough not to be found by trying, in a file that nobody else can read or replace."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from engine.config.trust import others_can_write

MIN_SECRET_BYTES = 16
"""Bytes of a secret below which it is found by trying, on the captured request of a day."""

_HOW = "'head -c 32 /dev/urandom | base64' makes a good one"


def doubts_of_secret(secret: bytes) -> list[str]:
    """What is wrong with a secret's text."""
    if len(secret) >= MIN_SECRET_BYTES:
        return []
    length = f"{len(secret)} byte{'s' if len(secret) != 1 else ''}"
    return [f"the cluster secret has {length}, and fewer than {MIN_SECRET_BYTES} can be guessed; {_HOW}"]


def doubts_of_file(file: Path) -> list[str]:
    """What is wrong with the file that a secret stands in. A group may read it: those who share an agent are one."""
    try:
        found = os.stat(file)
    except OSError:
        return []  # whoever reads it hears why
    if found.st_mode & stat.S_IROTH:
        return [f"everybody on this host can read the cluster secret in {file}; run 'chmod o-rwx {file}'"]
    if others_can_write(found):
        return [f"others can change the cluster secret in {file}; run 'chmod go-w {file}'"]
    return []
