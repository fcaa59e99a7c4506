"""A node inside one's own process: what its methods take of their arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from p2pstore import P2PStore
from p2pstore.errors import UsageError
from tests.p2pstore.samples import write_tree


def test_an_empty_path_is_not_the_current_directory(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with P2PStore(url) as store:
        store.register("n", b"x")
        for call in (
            lambda: store.register("empty", ""),
            lambda: store.register_many({"empty": ""}),
            lambda: store.get("n", ""),
        ):
            with pytest.raises(UsageError, match="the path is empty"):
                call()
        assert [each["name"] for each in store.list()] == ["n"]
    assert list(tmp_path.iterdir()) == []


def test_what_is_taken_of_a_directory(url: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_tree(root, {"a.bin": b"a", "b.txt": b"b", ".git/HEAD": b"c"})

    def files(info: dict[str, Any]) -> set[str]:
        return {file["path"] for file in info["files"]}

    with P2PStore(url) as store:
        store.register("usual", root)
        assert files(store.info("usual")) == {"a.bin", "b.txt"}
        store.register("some", root, include=["*.bin", "*.txt"], exclude=["b.*"])
        assert files(store.info("some")) == {"a.bin"}
        store.register_many({"all": root}, everything=True)
        assert files(store.info("all")) == {"a.bin", "b.txt", ".git/HEAD"}
        with pytest.raises(UsageError, match="bad pattern"):
            store.register("bad", root, exclude=["[z-a]"])
