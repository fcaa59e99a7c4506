"""A store's wrong arguments, each told as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pstore import P2PStore
from p2pstore.errors import BadName, MooncakeError, UsageError
from tests.engine.test_arguments import WRONG

OPTIONS = (
    "metadata", "node", "listen", "advertise", "secret", "zone", "lease_ttl", "connections", "rdma_devices", "state",
    "credentials",
)  # fmt: skip

CALLS: dict[str, Callable[[Any, P2PStore, Path], object]] = {
    "register's name": lambda x, s, p: s.register(x, b"x"),
    "register's source": lambda x, s, p: s.register("q", x),
    "register's hash": lambda x, s, p: s.register("q", b"x", hash=x),
    "register's chunk size": lambda x, s, p: s.register("q", b"x", chunk_size=x),
    "register's hash of a file": lambda x, s, p: s.register("of-a-file", p / "f", hash=x),
    "register's chunk size of a file": lambda x, s, p: s.register("q", p / "f", chunk_size=x),
    "register's patterns to include": lambda x, s, p: s.register("q", p, include=x),
    "register's patterns to exclude": lambda x, s, p: s.register("q", p, exclude=x),
    "register's buffer": lambda x, s, p: s.register("q", {"a": x}),
    "register_many": lambda x, s, p: s.register_many(x),
    "register_many's source": lambda x, s, p: s.register_many({"z": x}),
    "register_many's chunk size": lambda x, s, p: s.register_many({"z": p / "f"}, chunk_size=x),
    "get's name": lambda x, s, p: s.get(x, p / "o"),
    "get's destination": lambda x, s, p: s.get("absent", x),
    "get's transport": lambda x, s, p: s.get("w", p / "o", transport=x),
    "get's peers": lambda x, s, p: s.get("absent", p / "o", peers=x),
    "one of get's peers": lambda x, s, p: s.get("absent", p / "o", peers=[x] if not isinstance(x, str) else x),
    "get's progress": lambda x, s, p: s.get("w", p / "o", progress=x, force=True),
    "get's patterns to include": lambda x, s, p: s.get("w", p / "o", include=x),
    "get's patterns to exclude": lambda x, s, p: s.get("w", p / "o", exclude=x),
    "get's patterns of tensors": lambda x, s, p: s.get("w", p / "o", tensors=x),
    "get's range": lambda x, s, p: s.get("w", p / "o", byte_range=x),
    "load_tensors' name": lambda x, s, p: s.load_tensors(x, framework="numpy"),
    "load_tensors' device": lambda x, s, p: s.load_tensors("w", device=x, framework="numpy"),
    "load_tensors' devices": lambda x, s, p: s.load_tensors("w", devices=x),
    "load_tensors' layout": lambda x, s, p: s.load_tensors("w", layout=x, framework="numpy"),
    "load_tensors' patterns": lambda x, s, p: s.load_tensors("w", include=x, framework="numpy"),
    "load_tensors' rank": lambda x, s, p: s.load_tensors("w", rank=x, framework="numpy"),
    "load_tensors' cut": lambda x, s, p: s.load_tensors("w", rank=(0, 2), cut=x, framework="numpy"),
    "load_tensors' framework": lambda x, s, p: s.load_tensors("w", framework=x),
    "load_tensors' path": lambda x, s, p: s.load_tensors("w", path=x, framework="numpy"),
    "iter_tensors' name": lambda x, s, p: list(s.iter_tensors(x, framework="numpy")),
    "iter_tensors' memory": lambda x, s, p: s.iter_tensors("w", memory=x, framework="numpy"),
    "iter_tensors' note": lambda x, s, p: s.iter_tensors("w", note=x, framework="numpy"),
    "get_into's name": lambda x, s, p: s.get_into(x, bytearray(10)),
    "get_into's buffers": lambda x, s, p: s.get_into("w", x),
    "get_into's transport": lambda x, s, p: s.get_into("w", bytearray(10), transport=x),
    "get_into's peers": lambda x, s, p: s.get_into("w", bytearray(10), peers=x),
    "list's prefix": lambda x, s, p: s.list(x),
    "info's name": lambda x, s, p: s.info(x),
    "unregister's name": lambda x, s, p: s.unregister(x),
    "a history's name": lambda x, s, p: s.history(x),
    "a watch's name": lambda x, s, p: s.watch(x),
    "a watch's timeout": lambda x, s, p: s.watch("n", timeout=x),
    "a watch's note": lambda x, s, p: s.watch("n", note=x),
    "a tag's name": lambda x, s, p: s.tag(x, "v1"),
    "a tag": lambda x, s, p: s.tag("n", x),
    "the name of tags": lambda x, s, p: s.tags(x),
    "the tag that is removed": lambda x, s, p: s.untag(x),
    "a register's tags": lambda x, s, p: s.register("n", b"x", tags=x),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[P2PStore]:
    with P2PStore("memory://arguments") as made:
        made.register("w", bytes(10))
        yield made


@pytest.mark.parametrize("name", CALLS)
def test_its_calls_tell_it(name: str, store: P2PStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_bytes(b"f" * 100)
    refused = 0
    for wrong in WRONG:
        try:
            CALLS[name](wrong, store, tmp_path)
        except MooncakeError as error:
            refused += isinstance(error, UsageError)
    assert refused


@pytest.mark.parametrize("name", OPTIONS)
def test_its_options_tell_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = 0
    for wrong in WRONG:
        try:
            P2PStore(**{"metadata": "memory://arguments", name: wrong}).close()
        except MooncakeError as error:
            refused += isinstance(error, UsageError)
    assert refused


@pytest.mark.parametrize("wrong", [None, 5, b"x", ("a",), 1.5])
def test_a_name_that_is_no_text_is_a_bad_name(store: P2PStore, wrong: Any) -> None:
    for call in (store.info, store.unregister, lambda name: store.register(name, b"x")):
        with pytest.raises(BadName, match="it is not text"):
            call(wrong)


def test_a_secret_of_the_wrong_type_is_not_shown() -> None:
    with pytest.raises(UsageError, match="the secret must be bytes") as refused:
        P2PStore("memory://arguments", secret="hush-hush")  # type: ignore[arg-type]
    assert "hush" not in str(refused.value)


def test_one_peer_is_not_a_list_of_its_letters(store: P2PStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the peers must be a list of texts, and is '10.0.0.1:7300'"):
        store.get("w", tmp_path / "o", peers="10.0.0.1:7300")
