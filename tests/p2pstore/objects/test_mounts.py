"""Mount points are told by the kernel's own list: also those that are of the same file system."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from p2pstore.objects import mounts as module
from p2pstore.objects.mounts import LOCAL, Mounts

TEXT = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:25 / /data rw - nfs4 server:/x rw,vers=4.2
31 30 0:25 /sub /data/with\040space rw shared:3 master:4 - nfs4 server:/x rw
32 30 0:26 / /data rw - xfs /dev/b rw
nonsense
"""


def test_points_and_types() -> None:
    mounts = Mounts(TEXT)
    for path, mounted in (("/", True), ("/data", True), ("/data/with space", True), ("/data/with", False)):
        assert mounts.at(Path(path)) is mounted
    assert mounts.below(Path("/data")) == "/data/with space"
    assert mounts.below(Path("/data/with space")) == mounts.below(Path("/dat")) == ""
    assert mounts.kind(Path("/data/x")) == "xfs", "the later hides the earlier"
    assert mounts.kind(Path("/data/with space/x")) == "nfs4"
    assert mounts.kind(Path("/database")) == "ext4"
    assert "nfs4" not in LOCAL


def test_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOUNTINFO", tmp_path / "none")
    mounts = Mounts()
    assert mounts.at(Path("/"))
    assert not mounts.at(tmp_path)
    assert mounts.kind(tmp_path) == mounts.below(Path("/")) == ""


def test_a_bind_mount_of_the_same_file_system(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    point = tmp_path / "a point"
    point.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    done = subprocess.run(["mount", "--bind", tmp_path / "from", point], capture_output=True, timeout=30, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr!r}")
    try:
        assert Mounts().at(Path(os.path.realpath(point)))
        assert not os.path.ismount(point), "the test's point"
    finally:
        subprocess.run(["umount", "-l", point], check=True, timeout=30)
