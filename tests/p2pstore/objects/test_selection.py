"""What a register takes: patterns as people know them from a .gitignore, and what nobody means to publish."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.errors import BadSource, UsageError
from p2pstore.objects import selection as module
from p2pstore.objects.selection import Selection, literal, selection_of
from p2pstore.objects.source import scan
from p2pstore.pull.file_destination import FileDestination
from p2pstore.pull.workplace import work_name
from tests.p2pstore.samples import manifest_of, write_tree

PATHS = (
    "a.bin",
    "a.txt",
    "B.BIN",
    "original/a.bin",
    "original/deep/params.json",
    "deep/original/x.pth",
    "logs/1/out",
    "logs/2/out.txt",
    "x[1].bin",
    "x1.bin",
    "-rf",
    "back\\slash",
)

PATTERNS = [
    ("*.bin", {"a.bin", "original/a.bin", "x[1].bin", "x1.bin"}),
    ("a.*", {"a.bin", "a.txt", "original/a.bin"}),
    ("/a.*", {"a.bin", "a.txt"}),
    ("./a.*", {"a.bin", "a.txt"}),
    ("original", {"original/a.bin", "original/deep/params.json", "deep/original/x.pth"}),
    ("original/", {"original/a.bin", "original/deep/params.json", "deep/original/x.pth"}),
    ("/original/", {"original/a.bin", "original/deep/params.json"}),
    ("original/*", {"original/a.bin", "original/deep/params.json"}),
    ("original/**", {"original/a.bin", "original/deep/params.json"}),
    ("original/*.bin", {"original/a.bin"}),
    ("**/original/*.pth", {"deep/original/x.pth"}),
    ("logs/*/out", {"logs/1/out"}),
    ("logs/**/out*", {"logs/1/out", "logs/2/out.txt"}),
    ("logs/[!1]", {"logs/2/out.txt"}),
    ("?.bin", {"a.bin", "original/a.bin"}),
    ("[ab].bin", {"a.bin", "original/a.bin"}),
    ("x[1].bin", {"x1.bin"}),
    ("x\\[1\\].bin", {"x[1].bin"}),
    ("-rf", {"-rf"}),
    ("back\\\\slash", {"back\\slash"}),
    ("a.bin/", set()),
    ("A.BIN", set()),
    ("riginal", set()),
    ("*", set(PATHS)),
    ("**", set(PATHS)),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    write_tree(path, dict.fromkeys(PATHS, b""))
    return path


@pytest.mark.parametrize(("pattern", "fits"), PATTERNS, ids=[pattern for pattern, _ in PATTERNS])
def test_a_pattern_leaves_out_or_takes_what_fits_it(root: Path, pattern: str, fits: set[str]) -> None:
    if fits == set(PATHS):
        with pytest.raises(BadSource):
            scan(root, Selection(exclude=[pattern]))
    else:
        assert set(scan(root, Selection(exclude=[pattern])).paths) == set(PATHS) - fits
    if fits:
        assert set(scan(root, Selection(include=[pattern])).paths) == fits


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("pattern", [p for p, _ in PATTERNS if not p.startswith("./")])
def test_git_ignores_the_same(root: Path, pattern: str) -> None:
    subprocess.run(["git", "init", "-q", root], check=True, timeout=60)
    asked = "".join(f"{path}\0" for path in PATHS)
    excludes = root / ".git/info/exclude"
    excludes.write_text(pattern + "\n")
    done = subprocess.run(
        ["git", "-C", root, "-c", "core.excludesFile=", "check-ignore", "--no-index", "--stdin", "-z"],
        input=asked,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    ignored = set(filter(None, done.stdout.split("\0")))
    selection = Selection(exclude=[pattern])
    assert {path for path in PATHS if not _takes(selection, path)} == ignored


def _takes(selection: Selection, path: str) -> bool:
    """Whether a walk comes to a file, and takes it."""
    parents = [path[:at] for at, letter in enumerate(path) if letter == "/"]
    return all(selection.takes(parent, directory=True) for parent in parents) and selection.takes(path, directory=False)


def test_what_is_left_out_wins(root: Path) -> None:
    both = Selection(include=["*.bin", "*.pth"], exclude=["original"])
    assert scan(root, both).paths == ("a.bin", "x1.bin", "x[1].bin")


def test_nothing_fits(root: Path) -> None:
    with pytest.raises(UsageError, match=r"no file in it fits '\*\.safetensors'"):
        scan(root, Selection(include=["*.safetensors"]))


@pytest.mark.parametrize(
    ("include", "exclude", "words"),
    [
        ((), ("*",), "no file in it is left by '*'"),
        ((), ("*.bin", "[!.]*"), "no file in it is left by '*.bin', '[!.]*'"),
        (("*.bin",), ("*.b*",), "no file in it fits '*.bin' and is left by '*.b*'"),
        (("*.zip",), ("*.tmp",), "no file in it fits '*.zip'"),
    ],
)
def test_nothing_is_left(root: Path, include: Sequence[str], exclude: Sequence[str], words: str) -> None:
    with pytest.raises(BadSource) as caught:
        scan(root, Selection(include, exclude))
    assert str(caught.value) == f"{root} cannot be registered: {words}"


def test_a_directory_that_was_empty_before_is_taken_as_it_is(tmp_path: Path) -> None:
    assert scan(tmp_path, Selection(exclude=["*.tmp"])).paths == ()


def test_empty_directories_are_kept_unless_files_are_asked_for(root: Path) -> None:
    (root / "none").mkdir()
    (root / "away").mkdir()
    assert scan(root, Selection(exclude=["away"])).directories == ("none",)
    assert scan(root, Selection(exclude=["*.bin"])).directories == ("away", "none")
    assert scan(root, Selection(include=["*.bin"])).directories == ()


def test_one_file_is_taken_whatever_its_name(root: Path) -> None:
    assert scan(root / "a.bin", Selection(exclude=["*"])).paths == ("",)
    write_tree(root / ".git", {"HEAD": b""})
    assert scan(root / ".git").paths == ("HEAD",)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("", "fits nothing"), ("/", "fits nothing"), ("!a", "not known"), ("[z-a]", "brackets"), ("x" * 1025, "longer")],
)
def test_bad_patterns(pattern: str, words: str) -> None:
    for selection in ({"exclude": [pattern]}, {"include": [pattern]}):
        with pytest.raises(UsageError, match=words):
            Selection(**selection)


def test_too_many_patterns() -> None:
    Selection(exclude=["a"] * module.MAX_PATTERNS)
    with pytest.raises(UsageError, match="257 patterns"):
        Selection(exclude=["a"] * (module.MAX_PATTERNS + 1))


@given(st.text(min_size=1, max_size=40), st.text(max_size=40))
def test_any_pattern_is_taken_or_refused(pattern: str, path: str) -> None:
    with contextlib.suppress(UsageError):
        Selection(exclude=[pattern]).takes(path, directory=False)


NAMES = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=20)


@given(st.lists(NAMES, min_size=1, max_size=3), NAMES)
def test_a_literal_pattern_fits_its_path_alone(parts: list[str], other: str) -> None:
    path = "/".join(parts)
    selection = Selection(exclude=[literal(path)])
    assert not selection.takes(path, directory=False)
    if not f"{other}/{path}".startswith(f"{path}/"):
        assert selection.takes(f"{other}/{path}", directory=False)
    if other != parts[-1]:
        assert selection.takes("/".join([*parts[:-1], other]), directory=False)


# By default.

USUAL = {
    "lost+found/#123": b"x",
    "mounted/lost+found/#1": b"x",
    ".git/HEAD": b"x",
    "sub/.git": b"gitdir: ../.git/modules/sub",
    ".cache/huggingface/download/a.metadata": b"x",
    "model/.cache/huggingface/.gitignore": b"*",
}
KEPT = {".gitignore": b"x", ".cache/other": b"x", "huggingface/x": b"x", "a.part": b"x", "b.part.journal": b"x"}


def test_what_nobody_means_to_publish_is_left_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_tree(root, {**USUAL, **KEPT})
    tree = scan(root)
    assert set(tree.paths) == set(KEPT)
    assert len(tree.left_out) == len(USUAL)
    whole = scan(root, Selection(everything=True))
    assert set(whole.paths) == {*USUAL, *KEPT}
    assert whole.left_out == ()


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_an_unfinished_get_is_left_out(tmp_path: Path, kind: str) -> None:
    """Under whatever names a get has what it has so far."""
    root = tmp_path / "root"
    write_tree(root, {"a": b"x"})
    files = {"": b"12"} if kind == "file" else {"x": b"1", "y/z": b"2"}
    destination = FileDestination(root / "wanted", manifest_of(files), name="n")
    try:
        assert scan(root).paths == ("a",)
    finally:
        destination.abort()


def test_an_object_may_have_what_is_left_out_by_default() -> None:
    assert not selection_of(["a", "b/c"]).everything
    for path in (*USUAL, "x/.git"):
        assert selection_of(["a", path]).everything, path
    assert selection_of([f"x/{work_name('a')}/part"]).everything
    assert not selection_of(["x/a.part", "a.part.journal"]).everything
