"""Where processes of a user meet, nobody else may look or write."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from p2pstore.errors import StorageError
from p2pstore.sharing.place import meeting_directory


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_made_for_this_user_alone(temporary: Path) -> None:
    for _ in range(2):
        found = meeting_directory({})
        assert found == temporary / f"mooncake-share-{os.geteuid()}"
        assert stat.S_IMODE(found.stat().st_mode) == 0o700


def test_the_runtime_directory_is_preferred_if_it_is_ours(
    temporary: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runtime = tmp_path_factory.mktemp("runtime")
    runtime.chmod(0o700)
    assert meeting_directory({"XDG_RUNTIME_DIR": str(runtime)}) == runtime / "mooncake-share"
    runtime.chmod(0o755)
    assert meeting_directory({"XDG_RUNTIME_DIR": str(runtime)}).parent == temporary
    assert meeting_directory({"XDG_RUNTIME_DIR": "relative"}).parent == temporary


@pytest.mark.parametrize("kind", ["open", "link", "file", "another user's"])
def test_what_might_be_anothers_is_refused(temporary: Path, kind: str) -> None:
    place = temporary / f"mooncake-share-{os.geteuid()}"
    if kind == "file":
        place.touch(0o600)
    elif kind == "link":
        (temporary / "elsewhere").mkdir(0o700)
        place.symlink_to(temporary / "elsewhere")
    else:
        place.mkdir(0o700)
        if kind == "open":
            place.chmod(0o755)
        elif os.geteuid():
            pytest.skip("only root can give a directory to another user")
        else:
            os.chown(place, 12345, -1)
    with pytest.raises(StorageError, match="not a directory that this user alone may enter"):
        meeting_directory({})


def test_no_place_for_it_is_told(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "there" / "is none"))
    with pytest.raises(StorageError, match="No such file or directory"):
        meeting_directory({})
