"""What the hub's clients are told of a repository: JSON and headers. Pure.

The commit of a repository is made of the digest of the object's manifest, since git's has 40 digits and that has 64.
A file that git would keep has the name that git gives its content, a large one its SHA-256, as Git LFS has it: what was
downloaded from here and from the hub shares a place in a client's cache.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from p2pstore.hub.routes import DEFAULT_REVISION
from p2pstore.objects.oid import GIT, SHA256, git_oid

COMMIT_DIGITS = 40
"""Of git's names of commits."""

LFS_BYTES = 10 << 20
"""The hub takes no larger file into git itself."""

LFS_SUFFIXES = [
    ".7z",
    ".arrow",
    ".bin",
    ".bz2",
    ".ckpt",
    ".ftz",
    ".gguf",
    ".gz",
    ".h5",
    ".joblib",
    ".mlmodel",
    ".model",
    ".msgpack",
    ".npy",
    ".npz",
    ".onnx",
    ".ot",
    ".parquet",
    ".pb",
    ".pickle",
    ".pkl",
    ".pt",
    ".pth",
    ".rar",
    ".safetensors",
    ".tar",
    ".tflite",
    ".tgz",
    ".wasm",
    ".xz",
    ".zip",
    ".zst",
]
"""What the .gitattributes of a new repository on the hub gives to Git LFS, whatever its size."""

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"
"""What git itself keeps of a file that Git LFS has."""

REPO_NOT_FOUND = "RepoNotFound"
REVISION_NOT_FOUND = "RevisionNotFound"
ENTRY_NOT_FOUND = "EntryNotFound"
"""Of the header X-Error-Code, by which clients tell what is not there."""


@dataclass(frozen=True)
class RepoFile:
    """A file of a repository; ``oid`` is its name by content, and empty where nobody knows it.

    ``lfs``: Git LFS has it, so that it is called by its SHA-256.
    """

    path: str
    size: int
    oid: str
    lfs: bool


def way_of(path: str, size: int) -> str:
    """How a file's content is named: ``GIT``'s way or ``SHA256``."""
    return SHA256 if size > LFS_BYTES or path.lower().endswith(tuple(LFS_SUFFIXES)) else GIT


def commit_of(digest: str) -> str:
    """The commit of an object, from the digest of its manifest."""
    return digest[:COMMIT_DIGITS]


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit's name, or a manifest's whole digest."""
    return len(revision) in {COMMIT_DIGITS, 64} and set(revision) <= set("0123456789abcdef")


def info(repo: str, commit: str, files: Iterable[RepoFile], modified: float, *, blobs: bool = False) -> dict[str, Any]:
    """What a repository is. ``modified`` is in seconds since the epoch; ``blobs`` tells of sizes and contents, too."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(modified))
    return {
        "_id": commit[:24],
        "id": repo,
        "modelId": repo,
        "sha": commit,
        "createdAt": when,
        "lastModified": when,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [_sibling(file, blobs=blobs) for file in files],
    }


def _sibling(file: RepoFile, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": file.path}
    entry = _entry(file)
    told: dict[str, Any] = {"rfilename": file.path, "size": file.size, "blobId": entry["oid"]}
    if "lfs" in entry:
        told["lfs"] = {"sha256": file.oid, "size": file.size, "pointerSize": entry["lfs"]["pointerSize"]}
    return told


def tree(files: Iterable[RepoFile], below: str, *, recursive: bool) -> list[dict[str, Any]]:
    """The files below a directory, and the directories in it; those alone that lie there directly, or all."""
    prefix = f"{below.strip('/')}/" if below.strip("/") else ""
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        if not file.path.startswith(prefix):
            continue
        parts = file.path[len(prefix) :].split("/")
        for count in range(1, len(parts) if recursive else min(2, len(parts))):
            directory = prefix + "/".join(parts[:count])
            found.setdefault(directory, {"type": "directory", "oid": "0" * COMMIT_DIGITS, "size": 0, "path": directory})
        if recursive or len(parts) == 1:
            found[file.path] = _entry(file)
    return list(found.values())


def paths_info(files: Iterable[RepoFile], paths: Iterable[str]) -> list[dict[str, Any]]:
    """The entries of these paths, of those that are there."""
    everything = {entry["path"]: entry for entry in tree(files, "", recursive=True)}
    return [everything[path] for path in dict.fromkeys(p.strip("/") for p in paths) if path in everything]


def _entry(file: RepoFile) -> dict[str, Any]:
    if not file.lfs:
        return {"type": "file", "oid": file.oid, "size": file.size, "path": file.path}
    pointer = POINTER.format(oid=file.oid, size=file.size).encode()
    lfs = {"oid": file.oid, "size": file.size, "pointerSize": len(pointer)}
    return {"type": "file", "oid": git_oid(pointer), "size": file.size, "lfs": lfs, "path": file.path}


def refs(commit: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """The branches and tags of a repository: the commits that these lead to."""
    return {
        "branches": [_ref("heads", DEFAULT_REVISION, commit)],
        "converts": [],
        "tags": [_ref("tags", tag, commit) for tag, commit in tags.items()],
    }


def _ref(kind: str, name: str, commit: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}


def file_headers(file: RepoFile, commit: str) -> Mapping[str, str]:
    """What is said of a file beside its bytes."""
    headers = {"X-Repo-Commit": commit, "ETag": f'"{file.oid}"', "Accept-Ranges": "bytes"}
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.oid}"', "X-Linked-Size": str(file.size)}
    return headers


def error_headers(code: str, message: str) -> Mapping[str, str]:
    """What tells a client what is not there, or why it is to wait. A header holds one line of ASCII."""
    line = message.encode("ascii", "backslashreplace").decode().replace("\n", " ").replace("\r", " ")
    return {"X-Error-Message": line} | ({"X-Error-Code": code} if code else {})
