"""Ranks of a host, each a process with a GPU that is none, load together: each byte comes once, whoever is killed."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors

from p2pstore import P2PStore
from tests.p2pstore.samples import MIB, write_tree
from tests.p2pstore.sharing.ranks import STOPS, WAIT, Rank, ranks
from tests.p2pstore.tensors.checkpoints import Shapes, file_of

SHAPES: Shapes = {
    "lm_head.weight": ("F32", (1024, 700)),
    "byte": ("U8", (1,)),
    "model.norm.weight": ("BF16", (1 << 20,)),
    "layers.0.down_proj.weight": ("BF16", (512, 1024)),
    "layers.0.up_proj.weight": ("BF16", (4096, 1024)),
    "layers.1.down_proj.weight": ("BF16", (2, 1 << 20)),
}
FILES = {"a.safetensors": file_of(SHAPES, seed=1), "b.safetensors": file_of({"x.w1.weight": ("F32", (64, 64))}, seed=2)}
ALL = {name: tensor["data"] for data in FILES.values() for name, tensor in safetensors.deserialize(data)}
SIZE = sum(map(len, FILES.values()))
SLACK = 64 * 1024
"""Headers, which each rank reads for itself."""


def digest(data: bytes) -> str:
    return hashlib.sha256(bytes(data)).hexdigest()


WHOLE = {name: digest(data) for name, data in ALL.items()}


def sliced(rank: int, size: int) -> dict[str, str]:
    """The digests of a rank's slices, by Megatron's conventions."""
    found = {}
    for name, (kind, shape) in {**SHAPES, "x.w1.weight": ("F32", (64, 64))}.items():
        data = ALL[name]
        if "down_proj" in name:
            row = len(data) // shape[0]
            part = row // size
            data = b"".join(data[at + rank * part : at + (rank + 1) * part] for at in range(0, len(data), row))
        elif kind != "U8" and "norm" not in name:
            part = len(data) // size
            data = data[rank * part : (rank + 1) * part]
        found[name] = digest(data)
    return found


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[P2PStore]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    os.chmod(tmp_path, 0o700)  # as XDG_RUNTIME_DIR is
    with P2PStore("memory://source", node="source") as store:
        write_tree(tmp_path / "m", FILES)
        store.register("n", tmp_path / "m", chunk_size=MIB)
        yield store


def sent(store: P2PStore) -> int:
    return store._open().engine.bytes_sent


def options(store: P2PStore, **more: Any) -> dict[str, Any]:
    return {"peers": [store.control], **more}


def is_empty(root: Path) -> bool:
    """Whether nothing is left where ranks meet, and of the GPUs' memory that can be opened."""
    return list((root / "mooncake-share").iterdir()) == []


def test_all_get_the_same_and_each_byte_comes_once(source: P2PStore, tmp_path: Path) -> None:
    size = 3
    with ranks(tmp_path, size, options(source)) as made:
        for each in made:
            each.begin()
        for each in made:
            assert each.heard()["tensors"] == WHOLE, each.said
        assert SIZE * 0.99 < sent(source) < SIZE + size * SLACK
        for each in made:
            assert each.finish() == {"left": []}
            assert each.said == ""
    assert is_empty(tmp_path)


@pytest.mark.parametrize("size", [4])
def test_each_gets_its_slices_and_each_byte_comes_once(source: P2PStore, tmp_path: Path, size: int) -> None:
    with ranks(tmp_path, size, options(source, layout="shard")) as made:
        for each in made:
            each.begin()
        for rank, each in enumerate(made):
            assert each.heard()["tensors"] == sliced(rank, size), each.said
        assert SIZE * 0.99 < sent(source) < SIZE + size * SLACK
        for each in made:
            assert each.finish() == {"left": []}
    assert is_empty(tmp_path)


def begin(root: Path, made: list[Rank]) -> None:
    """Let the first rank be the first to come, whom the others meet."""
    made[0].begin()
    if made[0].stop != "before the meeting":
        until(lambda: any((root / "mooncake-share").glob("*.sock")))
    for each in made[1:]:
        each.begin()


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(("victim", "layout"), [(0, "replicate"), (1, "shard")], ids=["the first", "another"])
@pytest.mark.parametrize("stop", [stop for stop in STOPS if stop != "before the meeting"])
def test_one_that_is_killed_costs_itself_alone(
    source: P2PStore, tmp_path: Path, stop: str, victim: int, layout: str
) -> None:
    if stop == "before all is handed out" and victim:
        pytest.skip("the first one does that")
    size = 3 if layout == "replicate" else 2
    # Who stops while they meet comes for nobody: then those who came do without.
    more = {"meet_seconds": 5.0} if stop == "before all is handed out" else {}
    with ranks(tmp_path, size, options(source, layout=layout), stop={victim: stop}, **more) as made:
        begin(tmp_path, made)
        assert made[victim].heard() == {"stopped": stop}
        made[victim].kill()
        for rank, each in enumerate(made):
            if rank != victim:
                assert each.heard()["tensors"] == (WHOLE if layout == "replicate" else sliced(rank, size)), each.said
                assert each.finish() == {"left": []}, each.said
        if stop == "before a chunk is offered" and not victim:  # at another place it may have offered all
            assert "rank 0 of this host has ended: this one brings what was to come from it" in made[1].said
        assert sent(source) < 4 * SIZE
    assert is_empty(tmp_path)


def from_gpus(said: dict[str, Any]) -> int:
    """Bytes of tensors that a rank has read from others' GPUs."""
    return int(said["from_gpus"])


@pytest.mark.parametrize("kind", ["peers", "strangers", "garbling"])
def test_what_a_rank_has_on_its_gpu_the_others_read_there_if_they_can(
    source: P2PStore, tmp_path: Path, kind: str
) -> None:
    pairs = {} if kind == "peers" else {kind: [(0, 1), (1, 0)]}
    with ranks(tmp_path, 2, options(source), **pairs) as made:
        for each in made:
            each.begin()
        said = [each.heard() for each in made]
        for each in made:
            assert each.finish() == {"left": []}
        assert [each["tensors"] for each in said] == [WHOLE, WHOLE]
        tensors = sum(map(len, ALL.values()))
        came = sum(map(from_gpus, said))
        if kind == "peers":
            assert came >= tensors, "each has from the other what that one has brought"
        else:
            assert came < tensors / 2, "a try, and no more"
            assert ("reads other bytes" in made[0].said) == (kind == "garbling")


def test_what_was_read_of_a_killed_ranks_gpu_is_not_believed(source: P2PStore, tmp_path: Path) -> None:
    """Its memory may be anybody's by the time it is read: here it has other bytes."""
    goes_on = tmp_path / "goes on"
    stop = {0: "before a chunk is copied", 1: "after a chunk was offered"}
    with ranks(tmp_path, 2, options(source), stop=stop, goes_on=str(goes_on)) as made:
        begin(tmp_path, made)
        for rank, each in enumerate(made):
            assert each.heard() == {"stopped": stop[rank]}
        made[1].kill()
        for path in (tmp_path / "gpus").glob(f"*-{made[1].process.pid}-*"):
            path.write_bytes(os.urandom(path.stat().st_size))
        goes_on.touch()
        assert made[0].heard()["tensors"] == WHOLE
        assert made[0].finish() == {"left": []}
        assert "rank 1 of this host has ended" in made[0].said


def test_several_that_are_killed_at_different_places(source: P2PStore, tmp_path: Path) -> None:
    stop = {0: "after a chunk was offered", 1: "before a chunk is copied", 3: "at the end"}
    with ranks(tmp_path, 4, options(source), stop=stop) as made:
        begin(tmp_path, made)
        for rank in stop:
            made[rank].heard()
        for rank in stop:
            made[rank].kill()
        assert made[2].heard()["tensors"] == WHOLE, made[2].said
        assert made[2].finish() == {"left": []}
    assert is_empty(tmp_path)


def test_one_that_never_comes_is_not_waited_for(source: P2PStore, tmp_path: Path) -> None:
    with ranks(tmp_path, 3, options(source), stop={0: "before the meeting"}, meet_seconds=5.0) as made:
        begin(tmp_path, made)
        for each in made[1:]:
            assert each.heard()["tensors"] == WHOLE
            # On a slow day the other one is late, too.
            assert re.search("rank 0[, 12]* of this host did not come for n within 5 s: it is done without", each.said)
            each.finish()
    assert is_empty(tmp_path)


@pytest.mark.parametrize("stop", ["before a chunk is offered", "before a chunk is copied"])
def test_one_that_stands_still_is_done_without(source: P2PStore, tmp_path: Path, stop: str) -> None:
    """Stopped, not killed: nothing says so but its silence. What it then reads, and says, is too late."""
    silent = tmp_path / "it is silent"
    with ranks(tmp_path, 2, options(source), stop={1: stop}, silent_seconds=4.0, from_when=str(silent)) as made:
        begin(tmp_path, made)
        assert made[1].heard() == {"stopped": stop}
        made[1].process.send_signal(signal.SIGSTOP)
        silent.touch()
        assert made[0].heard()["tensors"] == WHOLE
        assert made[0].finish() == {"left": []}
        told = "rank 1 of this host has said nothing for 4 s: this one brings what was to come from it" in made[0].said
        assert told or stop == "before a chunk is copied", "it had brought all, perhaps"


def test_who_wants_something_else_is_not_shared_with(source: P2PStore, tmp_path: Path) -> None:
    with (
        ranks(tmp_path, 2, options(source)) as made,
        ranks(tmp_path, 2, options(source, include=["*_proj*"])) as others,
    ):
        for each in (made[0], others[1]):
            each.begin()
        assert made[0].heard()["tensors"] == WHOLE
        assert others[1].heard()["tensors"] == {name: each for name, each in WHOLE.items() if "_proj" in name}
        assert "loads other tensors, or other slices of them" in made[0].said + others[1].said
        made[0].finish()
        others[1].finish()


def test_a_rank_that_is_there_twice_is_told(source: P2PStore, tmp_path: Path) -> None:
    with ranks(tmp_path, 2, options(source)) as made, ranks(tmp_path, 2, options(source)) as others:
        made[0].begin()
        until(lambda: any((tmp_path / "mooncake-share").glob("*.sock")))
        others[0].begin()
        told = others[0].heard()
        assert told["error"] == "UsageError"
        assert "rank 0 is here already" in told["text"]
        made[1].begin()
        for each in made:
            assert each.heard()["tensors"] == WHOLE


@pytest.mark.parametrize("call", ["to_device", "record", "register"])
def test_a_gpu_that_fails_costs_its_own_rank_alone(source: P2PStore, tmp_path: Path, call: str) -> None:
    with ranks(tmp_path, 2, options(source), refuse={1: call}) as made:
        for each in made:
            each.begin()
        assert made[0].heard()["tensors"] == WHOLE
        told = made[1].heard()
        if call == "register":
            assert told["tensors"] == WHOLE, "it gets all alone, as it would without the others"
            assert "this rank gets n alone: GPU 1: cuMemHostRegister failed" in made[1].said
        else:
            assert told["error"] == "GpuFailed"
        for each in made:
            assert each.finish() == {"left": []}


def test_they_load_again_and_again(source: P2PStore, tmp_path: Path) -> None:
    with ranks(tmp_path, 2, options(source)) as made:
        for _ in range(2):
            before = sent(source)
            for each in made:
                each.begin()
            for each in made:
                assert each.heard()["tensors"] == WHOLE
            assert sent(source) - before < SIZE + 2 * SLACK
        for each in made:
            each.finish()
