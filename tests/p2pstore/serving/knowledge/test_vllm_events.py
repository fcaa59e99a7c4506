from __future__ import annotations

from typing import Any

import msgpack
import pytest

from p2pstore.serving.knowledge.vllm_events import BadEvents, BlocksRemoved, BlocksStored, Cleared, decode
from tests.p2pstore.serving.knowledge.messages import CLEARED, as_list, batch, removed, stored


@pytest.mark.parametrize("form", [dict, as_list], ids=["maps", "lists"])
def test_both_forms_say_the_same(form: Any) -> None:
    said = [stored([b"one", b"two"], range(8), parent=b"zero"), removed([7], "CPU"), CLEARED]
    assert decode(batch(*map(form, said))) == [
        BlocksStored([b"one", b"two"], b"zero", list(range(8)), 4),
        BlocksRemoved([7], "CPU"),
        Cleared(),
    ]


def test_a_batch_may_be_a_map_and_events_may_be_new_ones() -> None:
    payload = msgpack.packb({"ts": 1.0, "events": [{"type": "BlockMoved"}, [[1]], CLEARED | {"later": 1}]})
    assert decode(payload) == [Cleared()]


def test_blocks_that_are_not_what_their_tokens_say_are_marked() -> None:
    for more in ({"lora_name": "adapter"}, {"lora_id": 3}, {"extra_keys": [["salt"], None]}):
        (event,) = decode(batch(stored([1, 2], range(8)) | more))
        assert isinstance(event, BlocksStored)
        assert not event.plain
    (event,) = decode(batch(stored([1, 2], range(8)) | {"extra_keys": [None, None], "group_idx": 2, "medium": None}))
    assert event == BlocksStored([1, 2], None, list(range(8)), 4, "GPU", True, 2)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        msgpack.packb("text"),
        msgpack.packb([1.0]),
        msgpack.packb([1.0, "events"]),
        msgpack.packb([1.0, [7]]),
        batch({"type": "BlockRemoved"}),
        batch({"type": "BlockRemoved", "block_hashes": [[1]]}),
        batch(stored([1, 2], range(7))),
        batch(stored([1], ["a"] * 4)),
        batch(stored([1], range(4)) | {"block_size": 0}),
        batch(stored([1], range(4))) + b"more",
        b"\x81\x90\x01",  # a map whose key is a list
        batch(stored([1], range(4)) | {"group_idx": "first"}),
        batch(stored([1], range(4)) | {"group_idx": float("inf")}),
        batch(stored([1], range(4)) | {"parent_block_hash": [1]}),
        batch(stored([1], range(4)) | {"extra_keys": 5}),
    ],
)
def test_what_is_no_batch_is_an_error(payload: bytes) -> None:
    with pytest.raises(BadEvents):
        decode(payload)
