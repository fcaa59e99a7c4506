from __future__ import annotations

from p2pstore.serving.events import Removed, Stored
from p2pstore.serving.knowledge.pool_blocks import PoolBlocks

KNOWN = {b"\x01" * 32: "one", b"\x02" * 32: "two", int.from_bytes(b"\x03" * 8, "big"): "three"}


def key(byte: int) -> str:
    return f"w1@model@tp_rank:0@group:0@{bytes([byte] * 32).hex()}"


def test_what_changes_in_the_pool_is_told_once() -> None:
    pool = PoolBlocks("store", KNOWN.get)
    assert pool.listed([key(1), key(9), "somebody's", "odd@zz"]) == [Stored("store", ["one"])]
    assert pool.listed([key(1)]) == []
    assert pool.listed([key(2)]) == [Stored("store", ["two"]), Removed("store", ["one"])]
    assert pool.listed([]) == [Removed("store", ["two"])]


def test_engines_may_publish_the_last_eight_bytes() -> None:
    assert PoolBlocks("store", KNOWN.get).listed([key(3)]) == [Stored("store", ["three"])]
