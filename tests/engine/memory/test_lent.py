"""Whatever is memory in one piece is taken, by one rule; whatever is not is refused in words, and nothing is held."""

from __future__ import annotations

import gc
import mmap
import pickle
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.engine import Opcode, TransferEngine, TransferRequest
from engine.errors import UsageError
from engine.memory.lent import byte_view
from engine.memory.region import Region
from tests.engine.memory.kinds import READ_ONLY, REFUSED, WRITABLE, OverDLPack, WithPointer, content, ml_dtypes, numbers


@pytest.mark.parametrize("name", WRITABLE)
def test_memory_is_taken_as_it_lies(name: str) -> None:
    made = WRITABLE[name]()
    view = byte_view(made, "it", writable=True)
    assert (view.format, view.ndim, view.readonly) == ("B", 1, False)
    assert view == content(made)
    view[:] = bytes(reversed(view))
    assert view == content(made), "what is written through it is the object's"
    view.release()


@pytest.mark.parametrize("name", READ_ONLY)
def test_read_only_memory_is_read_and_not_written(name: str) -> None:
    made = READ_ONLY[name]()
    view = byte_view(made, "it")
    assert view.readonly
    assert view == content(made)
    view.release()
    with pytest.raises(UsageError, match="it is read-only, and cannot be written to"):
        byte_view(made, "it", writable=True)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_memory_is_refused_in_words(name: str) -> None:
    make, words = REFUSED[name]
    made = make()
    with pytest.raises(UsageError, match=f"^it.*{words}"):
        byte_view(made, "it")
    with pytest.raises(UsageError, match=words):
        Region.of(made)


@pytest.mark.parametrize(
    "empty",
    [b"", bytearray(), np.zeros((0, 3)), numbers(ml_dtypes.bfloat16, (0, 3)), OverDLPack(np.zeros((3, 0)))],
    ids=range(5),
)
def test_no_bytes_are_memory_too(empty: Any) -> None:
    assert byte_view(empty, "it") == b""
    assert byte_view(WithPointer(np.zeros((2, 0))), "it", writable=not isinstance(empty, bytes)) == b""


@pytest.mark.parametrize("name", sorted(WRITABLE.keys() - {"mmap", "array.array", "memoryview"}))
def test_memory_is_held_for_as_long_as_a_part_of_the_view_is(name: str) -> None:
    made = WRITABLE[name]()
    if isinstance(made, (memoryview, bytearray)):
        pytest.skip("nothing refers to it weakly")
    gone = weakref.ref(made)
    view = byte_view(made, "it")
    part = view[:1]
    del made
    view.release()
    gc.collect()
    assert gone() is not None or name.startswith("DLPack"), "DLPack's capsule holds the memory, not the object"
    part.release()
    assert gone() is None


def test_dlpack_gives_the_tensor_back() -> None:
    inner = numbers()
    before = sys.getrefcount(inner)
    tensor = OverDLPack(inner)
    view = byte_view(tensor, "it")
    del tensor
    assert sys.getrefcount(inner) > before
    view.release()
    assert sys.getrefcount(inner) == before


def test_a_mapping_can_be_closed_after_an_error() -> None:
    mapping = mmap.mmap(-1, 100, prot=mmap.PROT_READ)
    with pytest.raises(UsageError) as refused:
        byte_view(mapping, "it", writable=True)
    mapping.close()
    assert refused.value


def test_neither_numpy_nor_a_tensor_library_is_imported() -> None:
    program = """
import sys
from engine.memory.lent import byte_view
assert byte_view(bytearray(3), "it") == bytes(3)
assert not {"numpy", "torch", "jax", "ml_dtypes"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# The same rule wherever the engine takes memory


@pytest.mark.parametrize("name", WRITABLE)
def test_an_engine_moves_it(name: str) -> None:
    source, by_registration, directly = (WRITABLE[name]() for _ in range(3))
    expected = content(source)
    for made in (by_registration, directly):
        with byte_view(made, "it", writable=True) as view:
            view[:] = bytes(len(view))
    with TransferEngine() as ours, TransferEngine() as theirs:
        theirs.register_memory(source)
        segment = ours.open_segment(theirs.segment_name)
        address = segment.buffers[0].address
        ours.read(ours.register_memory(by_registration), segment, address)
        ours.read(directly, segment, address)
        batch = ours.submit_transfer([TransferRequest(Opcode.READ, directly, segment, address)])
        assert batch.wait(60)
        batch.raise_failed()
    assert content(by_registration) == content(directly) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_an_engine_refuses_it(name: str) -> None:
    make, words = REFUSED[name]
    made = make()
    with TransferEngine() as engine, TransferEngine() as peer:
        peer.register_memory(bytearray(8), writable=True)
        segment = engine.open_segment(peer.segment_name)
        address = segment.buffers[0].address
        if not isinstance(made, str):
            with pytest.raises(UsageError, match=words):
                engine.register_memory(made)
        for call in (engine.read, engine.write):
            with pytest.raises(UsageError, match=words):
                call(made, segment, address)
        with pytest.raises(UsageError, match=words):
            engine.submit_transfer([TransferRequest(Opcode.READ, made, segment, address)])


@pytest.mark.parametrize("name", READ_ONLY)
def test_an_engine_serves_read_only_memory_and_does_not_read_into_it(name: str) -> None:
    made = READ_ONLY[name]()
    with TransferEngine() as engine, TransferEngine() as peer:
        memory = engine.register_memory(made)
        peer.register_memory(bytearray(memory.length), writable=True)
        segment = engine.open_segment(peer.segment_name)
        engine.write(made, segment, segment.buffers[0].address)
        for local in (made, memory):
            with pytest.raises(UsageError, match="read-only"):
                engine.read(local, segment, segment.buffers[0].address)
        with pytest.raises(UsageError, match="read-only"):
            engine.register_memory(made, writable=True)


def test_text_may_be_meant_as_a_file_or_as_memory(tmp_path: Path) -> None:
    with TransferEngine() as engine, pytest.raises(UsageError, match=r"is text: give a file as a pathlib\.Path"):
        engine.register_memory(str(tmp_path))


def test_pickles_buffers_are_what_the_rule_rests_on() -> None:
    """The standard library's own view of contiguous memory, in any order: the oracle of ours."""
    for made in (numbers(), np.asfortranarray(numbers())):
        assert byte_view(made, "it") == pickle.PickleBuffer(made).raw()
