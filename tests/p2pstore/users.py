"""A process without privileges, for what root may do and others may not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534

_PRELUDE = f"""
import errno, json, os, shlex, sys, threading
from pathlib import Path
import p2pstore.agent.private
from p2pstore.agent.client import AgentClient
from p2pstore.agent.home import Home
from p2pstore.holding.same_content import same_content
from p2pstore.pull.file_destination import FileDestination
from p2pstore.errors import MooncakeError
from p2pstore.objects.hashing import hasher
from p2pstore.pull.journal import Journal
from p2pstore.objects.selection import Selection
from p2pstore.objects.source import scan
from p2pstore.objects.tree_hash import hash_tree
from tests.p2pstore.samples import content, manifest_of, read_tree, write_tree
if os.geteuid() == 0:  # only now: another user may not be able to read this interpreter's files
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
"""


def run_unprivileged(code: str, *arguments: str | Path) -> str:
    """Run Python code as a user without privileges; what it prints. ``arguments`` are its ``sys.argv[1:]``.

    Where this process is root's that is another user, else the same.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PRELUDE + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def own_directory() -> Iterator[Path]:
    """A directory of that user's, which pytest's own may not be."""
    path = Path(tempfile.mkdtemp(prefix="unprivileged "))
    try:
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        yield path
    finally:
        for found in path.rglob("*"):
            if found.is_dir() and not found.is_symlink():
                found.chmod(0o700)
        shutil.rmtree(path)
