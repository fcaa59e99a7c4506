"""Tensors of safetensors files, loaded from another node: the package itself says what they are."""

from __future__ import annotations

import gc
import json
import secrets
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from p2pstore import P2PStore
from p2pstore.errors import BadTensors, ObjectNotFound, StorageError, TensorNotFound, UsageError
from p2pstore.pull import tensor_survey
from tests.p2pstore.samples import MIB, write_tree
from tests.p2pstore.tensors.checkpoints import Shapes, file_of, framed, index_of

PATIENCE = 60.0

LAYER: Shapes = {
    "self_attn.q_proj.weight": ("BF16", (64, 64)),
    "self_attn.k_proj.weight": ("BF16", (32, 64)),
    "self_attn.v_proj.weight": ("BF16", (32, 64)),
    "self_attn.o_proj.weight": ("BF16", (64, 64)),
    "mlp.up_proj.weight": ("F8_E4M3", (256, 64)),
    "mlp.down_proj.weight": ("F8_E4M3", (64, 256)),
    "input_layernorm.weight": ("F32", (64,)),
}
LARGE: Shapes = {"lm_head.weight": ("F32", (1024, 1024)), "model.norm.weight": ("F32", (64,)), "step": ("I64", ())}
"""Of more than four chunks."""


def layer(number: int) -> Shapes:
    return {f"model.layers.{number}.{name}": kind for name, kind in LAYER.items()}


SHARDS = {
    "model-00001-of-00002.safetensors": {**layer(0), **layer(1)},
    "model-00002-of-00002.safetensors": {**layer(2), **LARGE},
}
CONFIG = b'{"num_attention_heads":4,"num_key_value_heads":2}'
CHECKPOINT = {
    "config.json": CONFIG,
    "model.safetensors.index.json": index_of(SHARDS),
    **{path: file_of(shapes, {"format": "pt"}, seed) for seed, (path, shapes) in enumerate(SHARDS.items())},
}


@pytest.fixture
def stores() -> Iterator[tuple[P2PStore, P2PStore]]:
    """One that gives and one that takes; they know each other by address alone."""
    with (
        P2PStore(f"memory://{secrets.token_hex(8)}", node="giver") as giver,
        P2PStore(f"memory://{secrets.token_hex(8)}", node="taker") as taker,
    ):
        yield giver, taker


@pytest.fixture
def load(stores: tuple[P2PStore, P2PStore], tmp_path: Path) -> Any:
    """Registers files at one node, and loads tensors of them at the other."""
    giver, taker = stores

    def loaded(files: Mapping[str, bytes], **options: Any) -> dict[str, Any]:
        root = tmp_path / secrets.token_hex(4)
        write_tree(root, files)
        giver.register("n", root, chunk_size=MIB, force=True)
        return taker.load_tensors("n", framework="numpy", peers=[giver.control], **options)

    return loaded


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Nobody looks for cycles meanwhile: with large tensors that can be long after they were let go of."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
def test_memory_that_is_let_go_of_is_free_at_once(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model took its memory still when the next was loaded in its place."""
    areas: list[weakref.ref[Any]] = []
    real = np.empty

    def empty(*shape: Any, **options: Any) -> Any:
        made = real(*shape, **options)
        areas.append(weakref.ref(made))
        return made

    monkeypatch.setattr(np, "empty", empty)
    found = load(CHECKPOINT)
    assert len(areas) >= 2
    assert all(area() is not None for area in areas)
    del found
    deadline = time.monotonic() + PATIENCE
    while any(area() is not None for area in areas):  # the event loop's thread may be at the last line of the get
        assert time.monotonic() < deadline
        time.sleep(0.01)


def expected(data: bytes) -> dict[str, Any]:
    """What is in a file, by the package, which leaves types that NumPy lacks as bytes."""
    kinds = {"BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn}
    found = {}
    for name, tensor in safetensors.deserialize(data):
        kind = kinds.get(tensor["dtype"]) or safetensors.numpy._TYPES[tensor["dtype"]]
        found[name] = np.frombuffer(tensor["data"], kind).reshape(tensor["shape"])
    return found


ALL = {name: t for path in SHARDS for name, t in expected(CHECKPOINT[path]).items()}


def assert_same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    assert set(found) == set(wanted)
    for name, tensor in found.items():
        assert tensor.dtype == wanted[name].dtype, name
        assert tensor.shape == wanted[name].shape, name
        assert tensor.tobytes() == wanted[name].tobytes(), name
        assert tensor.flags.aligned
        assert tensor.flags.writeable


def test_a_checkpoint_of_several_files(load: Any) -> None:
    found = load(CHECKPOINT)
    assert_same(found, ALL)
    assert len({id(tensor.base) for tensor in found.values()}) == len(SHARDS)


def test_a_single_file(load: Any) -> None:
    data = file_of(LARGE)
    assert_same(load({"": data}), expected(data))


def test_only_what_is_wanted_is_brought(load: Any, stores: tuple[P2PStore, P2PStore]) -> None:
    told: list[tuple[int, int]] = []
    found = load(CHECKPOINT, include=["model.layers.0.*", "model.layers.1.mlp.*"], progress=lambda *t: told.append(t))
    assert_same(found, {n: t for n, t in ALL.items() if n.startswith(("model.layers.0.", "model.layers.1.mlp."))})
    sent = stores[0]._open().engine.bytes_sent
    small = sum(map(len, CHECKPOINT.values())) - len(CHECKPOINT["model-00002-of-00002.safetensors"])
    assert sent <= small + MIB


def test_chunks_between_are_not_brought(load: Any, stores: tuple[P2PStore, P2PStore]) -> None:
    shapes: Shapes = {f"t{number}": ("F32", (1 << 18,)) for number in range(12)}
    data = file_of(shapes)
    found = load({"": data}, include=["t5", "t9"])
    assert_same(found, {name: t for name, t in expected(data).items() if name in {"t5", "t9"}})
    assert stores[0]._open().engine.bytes_sent <= 5 * MIB


def test_headers_that_came_along_are_not_brought_again(
    load: Any, stores: tuple[P2PStore, P2PStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = file_of(LARGE)
    assert_same(load({"": data}), expected(data))
    assert stores[0]._open().engine.bytes_sent == len(data)
    small = file_of(layer(0))
    for kept, times in ((1 << 20, 1), (0, 2)):
        monkeypatch.setattr(tensor_survey, "KEPT_BYTES", kept)
        before = stores[0]._open().engine.bytes_sent
        assert_same(load({"": small}), expected(small))
        assert stores[0]._open().engine.bytes_sent == before + times * len(small)


def test_many_headers_come_in_batches(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_survey, "BATCH_BYTES", 1)
    assert_same(load(CHECKPOINT), ALL)


def test_a_header_of_several_chunks(load: Any) -> None:
    shapes: Shapes = {f"{'x' * 1000}.{number}": ("U8", (1,)) for number in range(3000)}
    data = file_of({**shapes, **LARGE})
    assert_same(
        load({"m.safetensors": data}, include=["*.7", "step"]),
        {name: t for name, t in expected(data).items() if name.endswith(".7") or name == "step"},
    )


@pytest.mark.parametrize("world", [2, 4])
def test_each_rank_gets_its_slices(load: Any, world: int) -> None:
    cut = {"step": None}
    ranks = [load(CHECKPOINT, rank=(rank, world), cut=cut) for rank in range(world)]
    for name, whole in ALL.items():
        parts = [rank[name] for rank in ranks]
        if "norm" in name or name == "step":
            assert all(part.tobytes() == whole.tobytes() for part in parts)
        elif "k_proj" in name or "v_proj" in name:  # of two heads
            heads = np.split(whole, 2)
            assert all(part.tobytes() == heads[r * 2 // world].tobytes() for r, part in enumerate(parts))
        else:
            dimension = 1 if "o_proj" in name or "down_proj" in name else 0
            assert np.concatenate(parts, dimension).tobytes() == whole.tobytes()


def test_heads_stay_whole_where_one_file_is_named(load: Any) -> None:
    path, name = next(iter(SHARDS)), "model.layers.0.self_attn.k_proj.weight"
    found = load(CHECKPOINT, rank=(1, 4), path=path, include=[name])
    assert found[name].tobytes() == np.split(ALL[name], 2)[0].tobytes()


def test_a_slice_of_rows_is_all_that_comes(load: Any, stores: tuple[P2PStore, P2PStore]) -> None:
    data = file_of({"lm_head.weight": ("F32", (4096, 1024))})
    found = load({"": data}, rank=(1, 4))["lm_head.weight"]
    assert found.tobytes() == expected(data)["lm_head.weight"][1024:2048].tobytes()
    assert stores[0]._open().engine.bytes_sent <= 6 * MIB


def test_a_callers_cut(load: Any) -> None:
    data = file_of({"c_attn.weight": ("F32", (8, 6))})
    with pytest.raises(UsageError, match="say so with cut="):
        load({"": data}, rank=(1, 2))
    whole = expected(data)["c_attn.weight"]
    found = load({"": data}, rank=(1, 2), cut=lambda name, shape: len(shape) - 1)["c_attn.weight"]
    assert found.tobytes() == whole[:, 3:].tobytes()
    found = load({"": data}, rank=(1, 2), cut={"c_*": (1, 2, 3)})["c_attn.weight"]
    assert found.tobytes() == whole[:, 4:].tobytes()


def test_a_node_loads_what_it_has_itself(stores: tuple[P2PStore, P2PStore], tmp_path: Path) -> None:
    giver, _ = stores
    write_tree(tmp_path / "m", CHECKPOINT)
    giver.register("n", tmp_path / "m", chunk_size=MIB)
    assert_same(giver.load_tensors("n", framework="numpy"), ALL)
    assert giver._open().engine.bytes_sent == 0


def test_every_type_of_numpy(load: Any) -> None:
    kinds = "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ I16 U16 F16 BF16 I32 U32 F32 C64 F64 I64 U64"
    data = file_of({kind: (kind, (3, 5)) for kind in kinds.split()}, pad=1)
    found = load({"": data})
    bodies = {name: tensor["data"] for name, tensor in safetensors.deserialize(data)}
    assert {name: tensor.tobytes() for name, tensor in found.items()} == bodies
    assert all(tensor.shape == (3, 5) and tensor.flags.aligned for tensor in found.values())


@pytest.mark.parametrize("kind", ["F4", "F6_E2M3", "F6_E3M2"])
def test_types_that_numpy_has_not(load: Any, kind: str) -> None:
    data = file_of({"t": (kind, (4, 4)), "x": ("U8", (1,))})
    with pytest.raises(UsageError, match=f"'t' is of {kind}: NumPy has no type .* leave it out with include="):
        load({"": data})
    assert_same(load({"": data}, include=["x"]), {"x": expected_of(data, "x")})


def expected_of(data: bytes, name: str) -> Any:
    return np.frombuffer(dict(safetensors.deserialize(data))[name]["data"], np.uint8)


def test_an_empty_checkpoint(load: Any) -> None:
    assert load({"": framed(b"{}")}) == {}
    found = load({"": file_of({"none": ("F32", (0, 3))})})
    assert found["none"].shape == (0, 3)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"": b"no header at all"}, "^n cannot be read for tensors: its header is said to have"),
        ({"": b"x"}, "^n cannot be read for tensors: it has 1 bytes"),
        ({"m.safetensors": framed(b"{}", b"more")}, "^'m.safetensors' of n cannot .* its tensors end at byte 10"),
        ({**CHECKPOINT, "model.safetensors.index.json": b"["}, "'model.safetensors.index.json' of n cannot .* no JSON"),
        (
            {**CHECKPOINT, "model.safetensors.index.json": index_of({"model-00001-of-00002.safetensors": LARGE})},
            "it says that tensor 'lm_head.weight' is in 'model-00001-of-00002.safetensors', and it is not",
        ),
    ],
)
def test_files_that_lie(load: Any, files: Mapping[str, bytes], sentence: str) -> None:
    with pytest.raises(BadTensors, match=sentence):
        load(files)


def test_a_name_that_is_not_there(load: Any) -> None:
    with pytest.raises(TensorNotFound, match=r"fits 'model.layer.0.\*'; it has 24 tensors, such as 'lm_head.weight'"):
        load(CHECKPOINT, include=["model.layer.0.*", "model.layers.0.*"])
    with pytest.raises(TensorNotFound, match="it has none at all"):
        load({"": framed(b"{}")}, include=["x"])


def test_an_object_without_tensors(load: Any) -> None:
    with pytest.raises(UsageError, match="no file of the object ends in"):
        load({"config.json": CONFIG})


def test_parts_of_an_object(load: Any) -> None:
    files = {"unet/d.safetensors": file_of(LARGE, seed=1), "vae/d.safetensors": file_of(LARGE, seed=2)}
    with pytest.raises(UsageError, match="say with path="):
        load(files)
    assert_same(load(files, path="vae"), expected(files["vae/d.safetensors"]))
    assert_same(load(files, path="unet/d.safetensors"), expected(files["unet/d.safetensors"]))


@pytest.mark.parametrize(
    "options",
    [
        {"framework": "tensorflow"},
        {"framework": "numpy", "device": "cuda:0"},
        {"framework": "numpy", "rank": 0},
        {"framework": "numpy", "rank": (2, 2)},
        {"framework": "numpy", "rank": (0, "a")},
        {"framework": "numpy", "cut": {}},
        {"framework": "numpy", "cut": 3, "rank": (0, 2)},
        {"framework": "numpy", "include": "lm_head.weight"},
        {"framework": "numpy", "include": [""]},
    ],
)
def test_slips_are_told_before_anything_is_asked(stores: tuple[P2PStore, P2PStore], options: Any) -> None:
    with pytest.raises(UsageError):
        stores[1].load_tensors("n", **options)


def test_a_name_that_nobody_has(stores: tuple[P2PStore, P2PStore]) -> None:
    with pytest.raises(ObjectNotFound):
        stores[1].load_tensors("n", framework="numpy")


def test_too_little_memory(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = np.empty

    def empty(length: Any, *rest: Any, **options: Any) -> Any:
        if length == len(file_of(LARGE)) - json_length(file_of(LARGE)):
            raise MemoryError
        return real(length, *rest, **options)

    monkeypatch.setattr(np, "empty", empty)
    with pytest.raises(StorageError, match="memory: cannot allocate memory"):
        load({"": file_of(LARGE)})


def json_length(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def test_the_sample_is_what_it_should_be() -> None:
    assert json.loads(CHECKPOINT["model.safetensors.index.json"])["weight_map"].keys() == ALL.keys()
