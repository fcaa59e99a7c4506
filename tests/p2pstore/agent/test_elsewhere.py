"""What stands for a directory is ours alone, is found again, and is believed only as long as it is."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from p2pstore.agent import elsewhere
from p2pstore.agent.elsewhere import POINTER, place_of, use_another_place, use_itself
from p2pstore.errors import StorageError


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where another place is made, instead of the machine's own directories."""
    made = tmp_path / "tmp"
    made.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    monkeypatch.setattr(elsewhere, "_candidates", lambda digest: [(made, f"mooncake-{digest}")])
    return made


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    return made


def test_a_directory_stands_for_itself(directory: Path) -> None:
    assert place_of(directory) == directory
    use_itself(directory)


def test_another_one_stands_for_it_until_it_does_itself(directory: Path, temporary: Path) -> None:
    found = use_another_place(directory, "it holds no sockets")
    assert found.parent == temporary
    assert found.stat().st_mode & 0o777 == 0o700
    assert place_of(directory) == found
    assert use_another_place(directory, "it holds no sockets") == found
    use_itself(directory)
    assert place_of(directory) == directory


@pytest.mark.parametrize("fault", ["open", "link", "gone", "relative", "nonsense"])
def test_what_is_not_ours_alone_is_not_believed(directory: Path, tmp_path: Path, fault: str) -> None:
    found = use_another_place(directory, "why")
    if fault == "open":
        found.chmod(0o755)
    elif fault == "link":
        found.rename(tmp_path / "moved")
        found.symlink_to(tmp_path / "moved")
    elif fault == "gone":
        found.rmdir()
    elif fault == "relative":
        (directory / POINTER).write_text("somewhere")
    else:
        (directory / POINTER).write_bytes(b"\0" * 5000)
    assert place_of(directory) == directory


def test_what_somebody_else_made_is_not_used(directory: Path, temporary: Path) -> None:
    found = use_another_place(directory, "why")
    use_itself(directory)
    found.chmod(0o777)
    with pytest.raises(StorageError, match=r"why; and nothing can stand for it: .* is not ours alone"):
        use_another_place(directory, "why")
    assert not (directory / POINTER).exists()


def test_candidates_are_on_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = elsewhere._candidates("abc")
    assert all(name.endswith("-abc") for _, name in found)
    assert Path("/tmp") in [parent for parent, _ in found]
    assert all(str(os.geteuid()) in f"{parent}/{name}" for parent, name in found)
