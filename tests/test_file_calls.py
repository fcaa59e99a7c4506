"""Calls that file systems refuse, or do in part, are made in one place, where a table says what is done instead."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

CALLS = {
    "os": {"chmod", "fchmod", "fdatasync", "fsync", "ftruncate", "link", "pread", "preadv", "pwrite", "pwritev", "sendfile",
           "statvfs", "truncate", "copy_file_range", "posix_fallocate", "setxattr"},
    "fcntl": {"flock", "lockf", "ioctl"},
}  # fmt: skip
"""They are made through ``engine.files.system``, which tests replace."""

ELSEWHERE = {
    Path("p2pstore/pull/target.py"): "ioctl",  # what chattr(1) set: no answer is none, whatever the error
}
"""What no table is needed for, and why."""

MODULES = sorted(path.relative_to(ROOT) for layer in ("engine", "p2pstore") for path in (ROOT / layer).rglob("*.py"))


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[1] not in {"files", "bench"}], ids=str)
def test_calls_that_file_systems_refuse_are_made_in_one_place(path: Path) -> None:
    found = {
        f"{node.func.value.id}.{node.func.attr}"
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
        if node.func.attr in CALLS.get(node.func.value.id, set()) - {ELSEWHERE.get(path)}
    }
    assert not found, "use engine.files.system"
