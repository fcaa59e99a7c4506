"""Documents and headers as the released client reads them."""

from __future__ import annotations

import pytest
from huggingface_hub.hf_api import ModelInfo, RepoFolder
from huggingface_hub.hf_api import RepoFile as TheirFile

from p2pstore.hub import documents
from p2pstore.hub.documents import RepoFile
from p2pstore.objects.oid import GIT, SHA256, git_oid

COMMIT = "a" * 40
FILES = [
    RepoFile("config.json", 2, "b" * 40, lfs=False),
    RepoFile("sub/deep/m.safetensors", 7, "c" * 64, lfs=True),
    RepoFile("sub/x", 0, git_oid(b""), lfs=False),
]


@pytest.mark.parametrize(
    ("path", "size", "way"),
    [
        ("config.json", 100, GIT),
        ("m.safetensors", 1, SHA256),
        ("a/M.SAFETENSORS", 1, SHA256),
        ("tokenizer.json", documents.LFS_BYTES, GIT),
        ("tokenizer.json", documents.LFS_BYTES + 1, SHA256),
    ],
)
def test_what_git_lfs_has(path: str, size: int, way: str) -> None:
    assert documents.way_of(path, size) == way


def test_the_client_understands_what_a_repository_is() -> None:
    told = ModelInfo(**documents.info("org/name", COMMIT, FILES, 1.7e9))
    assert (told.id, told.sha) == ("org/name", COMMIT)
    assert told.siblings is not None
    assert [each.rfilename for each in told.siblings] == [file.path for file in FILES]


def test_and_its_files_contents() -> None:
    told = ModelInfo(**documents.info("org/name", COMMIT, FILES, 1.7e9, blobs=True))
    assert told.siblings is not None
    assert [each.size for each in told.siblings] == [2, 7, 0]
    assert told.siblings[0].blob_id == "b" * 40
    assert told.siblings[1].lfs is not None
    assert told.siblings[1].lfs["sha256"] == "c" * 64


def test_and_the_tree() -> None:
    entries = documents.tree(FILES, "", recursive=True)
    files = [TheirFile(**entry) for entry in entries if entry["type"] == "file"]
    folders = [RepoFolder(**entry) for entry in entries if entry["type"] == "directory"]
    assert [file.path for file in files] == [file.path for file in FILES]
    assert [folder.path for folder in folders] == ["sub", "sub/deep"]
    assert files[0].lfs is None
    assert files[0].blob_id == "b" * 40
    assert files[1].lfs is not None
    assert (files[1].lfs.sha256, files[1].lfs.size, files[1].size) == ("c" * 64, 7, 7)


@pytest.mark.parametrize(
    ("below", "recursive", "paths"),
    [
        ("", False, ["config.json", "sub"]),
        ("sub", False, ["sub/deep", "sub/x"]),
        ("/sub/", True, ["sub/deep", "sub/deep/m.safetensors", "sub/x"]),
        ("su", True, []),
    ],
)
def test_below_a_directory(below: str, recursive: bool, paths: list[str]) -> None:
    assert [entry["path"] for entry in documents.tree(FILES, below, recursive=recursive)] == paths


def test_some_paths() -> None:
    told = documents.paths_info(FILES, ["sub/x", "none", "sub", "/sub/x"])
    assert [(entry["type"], entry["path"]) for entry in told] == [("file", "sub/x"), ("directory", "sub")]


def test_headers_of_a_file() -> None:
    small = documents.file_headers(FILES[0], COMMIT)
    assert small["ETag"] == f'"{"b" * 40}"'
    assert small["X-Repo-Commit"] == COMMIT
    assert "X-Linked-Etag" not in small
    large = documents.file_headers(FILES[1], COMMIT)
    assert large["X-Linked-Etag"] == f'"{"c" * 64}"'
    assert large["X-Linked-Size"] == "7"
    assert not {name for name in large if "xet" in name.lower()}


def test_a_message_is_one_line_of_ascii() -> None:
    told = documents.error_headers("EntryNotFound", "nö\r\nX-Evil: 1")
    assert told["X-Error-Code"] == "EntryNotFound"
    assert told["X-Error-Message"].isascii()
    assert not set("\r\n") & set(told["X-Error-Message"])
    assert "X-Error-Code" not in documents.error_headers("", "x")


def test_revisions() -> None:
    digest = "0123456789abcdef" * 4
    assert documents.is_commit(documents.commit_of(digest))
    assert documents.is_commit(digest)
    assert not documents.is_commit("main")
    assert not documents.is_commit("A" * 40)
    told = documents.refs(COMMIT, {"v1": "b" * 40})
    assert told["branches"][0]["targetCommit"] == COMMIT
    assert told["tags"] == [{"name": "v1", "ref": "refs/tags/v1", "targetCommit": "b" * 40}]
