"""Each name of the real module and of its classes, in each release served, is in ours, or said to be left out."""

from __future__ import annotations

import json
import subprocess
import sys
from enum import Enum

import pytest

from p2pstore.kv.client import compat
from p2pstore.kv.client.compat_left_out import LEFT_OUT, LEFT_OUT_OF_THE_MODULE
from tests.interop.wheels import OLD, OLDEST, wheel

TYPES = (
    "BufferHandle", "BufferLease", "BufferPool", "Descriptor", "DiskDescriptor", "MemoryDescriptor",
    "MooncakeHostMemAllocator", "ParallelAxis", "QueryTaskResponse", "ReadTarget", "ReplicaDescriptor",
    "ReplicateConfig", "TensorParallelism",
)  # fmt: skip

LOOK = """
import json
import mooncake.store as module

public = lambda thing: sorted(name for name in dir(thing) if not name.startswith("_"))
classes = [name for name in public(module) if isinstance(getattr(module, name), type)]
print("found", json.dumps({"": public(module), **{name: public(getattr(module, name)) for name in classes}}))
"""


@pytest.fixture(scope="module")
def real() -> dict[str, list[str]]:
    """The public names of the real module, and of its types."""
    return names_of("newest")


def names_of(release: str) -> dict[str, list[str]]:
    installed = wheel(release)
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        capture_output=True, text=True, timeout=60, check=True, env={"PATH": "", **installed.environment},
    )  # fmt: skip
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("found "))
    return dict(json.loads(line.removeprefix("found ")))


def test_each_name_of_the_class_is_there_or_said_to_be_left_out(real: dict[str, list[str]]) -> None:
    ours = {name for name in dir(compat.MooncakeDistributedStore) if not name.startswith("_")}
    theirs = set(real["MooncakeDistributedStore"])
    assert sorted(theirs - ours) == sorted(LEFT_OUT)


def test_each_name_of_the_module_is_there_or_said_to_be_left_out(real: dict[str, list[str]]) -> None:
    assert sorted(set(real[""]) - set(dir(compat))) == sorted(LEFT_OUT_OF_THE_MODULE)


@pytest.mark.parametrize("name", TYPES)
def test_its_types_have_all_their_names(real: dict[str, list[str]], name: str) -> None:
    made = getattr(compat, name)
    plain = {"Descriptor", "ParallelAxis", "ReadTarget", "ReplicateConfig", "TensorParallelism"}
    ours = {*dir(made), *dir(made())} if name in plain else set(dir(made))
    set_when_made = {
        "MemoryDescriptor": {"buffer_descriptor"},
        "DiskDescriptor": {"file_path", "object_size"},
        "ReplicaDescriptor": {"status"},
        "QueryTaskResponse": set(real[name]),  # a plain record, which ``test_compat`` reads
    }.get(name, set())
    assert not set(real[name]) - ours - set_when_made


@pytest.mark.parametrize("release", [OLDEST, OLD, "newest"])
def test_no_release_has_a_name_that_is_neither_here_nor_said_to_be_left_out(release: str) -> None:
    found = names_of(release)
    absent = {
        f"mooncake.store.{name}" for name in set(found.pop("")) - set(dir(compat)) - LEFT_OUT_OF_THE_MODULE.keys()
    }
    set_when_made = {"MemoryDescriptor", "DiskDescriptor", "ReplicaDescriptor", "QueryTaskResponse"}
    for kind, names in found.items():
        if kind in LEFT_OUT_OF_THE_MODULE or kind in set_when_made:
            continue
        made = getattr(compat, kind)
        ours = {*dir(made), *(LEFT_OUT if kind == "MooncakeDistributedStore" else ())}
        if kind in {"Descriptor", "ParallelAxis", "ReadTarget", "ReplicateConfig", "TensorParallelism"}:
            ours |= set(dir(made()))
        if issubclass(made, Enum):
            ours |= set(dir(next(iter(made))))
        absent |= {f"{kind}.{name}" for name in set(names) - ours}
    print(f"absent of {release}: {sorted(absent) or 'nothing'}")
    assert not absent


@pytest.mark.parametrize("name", ["COMPLETE", "FAILED", "PROCESSING", "UNKNOWN", "REPLICA_MOVE"])
def test_values_of_enumerations_are_names_of_the_module(name: str) -> None:
    """As upstream's are; of FAILED and PROCESSING, which two have, it is the later one's."""
    kinds = {"COMPLETE": "ReplicaStatus", "UNKNOWN": "ObjectDataType", "REPLICA_MOVE": "TaskType"}
    assert getattr(compat, name) is getattr(compat, kinds.get(name, "TaskStatus"))[name]


def test_who_asks_for_what_is_left_out_hears_why() -> None:
    store = compat.MooncakeDistributedStore()
    for name, why in LEFT_OUT.items():
        assert not hasattr(store, name)
        with pytest.raises(AttributeError) as raised:
            getattr(store, name)
        assert str(raised.value).endswith(f": {why}")
    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'$"):
        _ = store.nonsense
