"""Tensors that come one by one from another node, through less memory than they take."""

from __future__ import annotations

import gc
import secrets
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from p2pstore import P2PStore
from p2pstore.errors import Closed, ObjectNotFound, TensorNotFound, UsageError
from tests.p2pstore.samples import MIB, write_tree
from tests.p2pstore.tensors.checkpoints import Shapes, file_of, index_of

PATIENCE = 60.0

FIRST: Shapes = {
    "embed.weight": ("F32", (1024, 1024)),  # of 4 MiB
    "layers.0.norm.weight": ("F32", (64,)),
    "layers.0.q_proj.weight": ("F32", (512, 512)),
    "layers.0.o_proj.weight": ("F32", (512, 512)),
    "layers.0.none": ("F32", (0, 4)),
    "layers.0.down_proj.weight": ("F32", (512, 1024)),
}
SECOND: Shapes = {f"layers.1.up_proj.{number}": ("F16", (3, 1000)) for number in range(300)}
SHARDS = {"model-00001-of-00002.safetensors": FIRST, "model-00002-of-00002.safetensors": SECOND}
CHECKPOINT = {
    "model.safetensors.index.json": index_of(SHARDS),
    **{path: file_of(shapes, seed=seed) for seed, (path, shapes) in enumerate(SHARDS.items())},
}
ALL = {name: tensor for path in SHARDS for name, tensor in safetensors.numpy.load(CHECKPOINT[path]).items()}


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[P2PStore, P2PStore]]:
    """One that has the checkpoint, and one that takes it."""
    write_tree(tmp_path / "m", CHECKPOINT)
    with (
        P2PStore(f"memory://{secrets.token_hex(8)}", node="giver") as giver,
        P2PStore(f"memory://{secrets.token_hex(8)}", node="taker") as taker,
    ):
        giver.register("n", tmp_path / "m", chunk_size=MIB)
        yield giver, taker


@pytest.fixture
def tensors(stores: tuple[P2PStore, P2PStore]) -> Any:
    giver, taker = stores

    def some(**options: Any) -> Iterator[tuple[str, Any]]:
        return taker.iter_tensors("n", framework="numpy", peers=[giver.control], **options)

    return some


def assert_same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    assert list(found) == [name for shapes in SHARDS.values() for name in shapes if name in wanted]
    for name, tensor in found.items():
        assert tensor.dtype == wanted[name].dtype, name
        assert tensor.shape == wanted[name].shape, name
        assert tensor.tobytes() == wanted[name].tobytes(), name


@pytest.mark.parametrize("memory", [MIB, 2 * MIB, 5 * MIB, 1 << 30])
def test_all_of_it_comes_once_and_in_order(tensors: Any, stores: tuple[P2PStore, P2PStore], memory: int) -> None:
    assert_same(dict(tensors(memory=memory)), ALL)
    assert stores[0]._open().engine.bytes_sent == sum(map(len, CHECKPOINT.values()))


def test_memory_is_bounded(tensors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is allocated lives until it is let go of, as arrays do; nothing that was taken is kept here."""
    lock = threading.Lock()
    alive = most = 0
    real = np.empty

    class Counted(np.ndarray[Any, Any]):
        def __del__(self) -> None:
            nonlocal alive
            if self.base is None:
                with lock:
                    alive -= self.nbytes

    def empty(length: Any, *rest: Any, **options: Any) -> Any:
        nonlocal alive, most
        made = Counted((length,), np.uint8)
        with lock:
            alive += length
            most = max(most, alive)
        return made

    monkeypatch.setattr(np, "empty", empty)
    taken = 0
    gc.disable()  # with large tensors nobody looks for cycles soon
    try:
        for _, tensor in tensors(memory=5 * MIB):
            taken += tensor.nbytes
    finally:
        gc.enable()
    monkeypatch.setattr(np, "empty", real)
    assert taken == sum(tensor.nbytes for tensor in ALL.values())
    largest = max(tensor.nbytes for tensor in ALL.values())
    assert most <= 5 * MIB + largest < taken  # and the one that the loop has in its hands


def test_the_next_ones_come_while_some_are_taken(tensors: Any, stores: tuple[P2PStore, P2PStore]) -> None:
    """The get goes on until its memory is used, whatever the taker does."""
    items = tensors(memory=8 * MIB)
    next(items)
    waited = threading.Event()
    for _ in range(int(PATIENCE * 20)):
        if stores[0]._open().engine.bytes_sent >= 6 * MIB:
            break
        waited.wait(0.05)
    assert stores[0]._open().engine.bytes_sent >= 6 * MIB
    assert len(list(items)) == len(ALL) - 1


def test_some_of_them(tensors: Any) -> None:
    wanted = {name: tensor for name, tensor in ALL.items() if name.startswith("layers.0.")}
    assert_same(dict(tensors(include=["layers.0.*"], memory=MIB)), wanted)


def test_a_ranks_slices(tensors: Any) -> None:
    named = [name for name in FIRST if name.endswith("proj.weight")]
    parts = [dict(tensors(include=["*proj.weight"], rank=(rank, 2), memory=MIB)) for rank in range(2)]
    for name in named:
        dimension = 1 if "o_proj" in name or "down_proj" in name else 0
        assert np.concatenate([part[name] for part in parts], dimension).tobytes() == ALL[name].tobytes()


def test_a_get_that_is_not_wanted_any_more_ends(tensors: Any) -> None:
    before = threading.active_count()
    items = tensors(memory=MIB)
    next(items)
    assert any(thread.name == "tensors-n" for thread in threading.enumerate())
    items.close()
    assert not any(thread.name == "tensors-n" for thread in threading.enumerate())
    assert dict(tensors(memory=1 << 30)).keys() == ALL.keys()  # and the next one is not disturbed
    assert threading.active_count() <= before + 32


def test_closing_the_store_ends_it(tensors: Any, stores: tuple[P2PStore, P2PStore]) -> None:
    items = tensors(memory=MIB)
    next(items)
    stores[1].close()
    with pytest.raises(Closed):
        list(items)


def test_what_is_wrong_is_told(tensors: Any, stores: tuple[P2PStore, P2PStore]) -> None:
    giver, taker = stores
    with pytest.raises(TensorNotFound, match="no tensor that fits 'x'"):
        next(tensors(include=["x"]))
    with pytest.raises(ObjectNotFound):
        next(taker.iter_tensors("other", framework="numpy", peers=[giver.control]))
    slips: list[dict[str, Any]] = [{"memory": 10}, {"note": 3}, {"cut": {}}, {"include": "x"}, {"transport": "air"}]
    for options in slips:
        with pytest.raises(UsageError):
            tensors(**options)


def test_what_was_here_is_not_brought(stores: tuple[P2PStore, P2PStore]) -> None:
    giver, _ = stores
    assert_same(dict(giver.iter_tensors("n", framework="numpy", memory=MIB)), ALL)
    assert giver._open().engine.bytes_sent == 0
