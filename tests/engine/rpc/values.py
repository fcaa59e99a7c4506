"""Values of any type of the master's wire, as hypothesis draws them."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st

from engine.rpc import types as t
from engine.rpc.codes import Code
from engine.rpc.messages import SoftPin

CODES = st.sampled_from([code for code in Code if code])
TEXT = st.one_of(st.text(max_size=40), st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape")))
IDS = st.binary(min_size=16, max_size=16)


def values(kind: t.Type) -> st.SearchStrategy[Any]:
    """What a value of this type may be."""
    if isinstance(kind, t.Scalar):
        return _numbers(kind)
    if isinstance(kind, t.Identity):
        return IDS
    if isinstance(kind, t.String):
        return st.just('{"key":"k"}') if kind.write else TEXT
    if isinstance(kind, t.Void):
        return st.just(Code.OK)
    if isinstance(kind, t.Vector):
        return st.lists(values(kind.item), max_size=4)
    if isinstance(kind, t.Map):
        return st.dictionaries(values(kind.key), values(kind.value), max_size=4)
    if isinstance(kind, t.Optional):
        return st.one_of(st.none(), values(kind.item))
    if isinstance(kind, t.Expected):
        return st.one_of(CODES, values(kind.item))
    if isinstance(kind, t.Variant):
        return st.one_of([values(item) for item in kind.items])
    assert isinstance(kind, t.Struct)
    found = {name: values(field) for name, field in kind.fields}
    parts = st.tuples(*[found.get(name, st.just(kind.defaults.get(name))) for name in kind.names])
    return parts.map(lambda each: each if kind.make is tuple else tuple.__new__(kind.make, each))


def _numbers(kind: t.Scalar) -> st.SearchStrategy[Any]:
    if kind.write != "{}":
        return st.sampled_from([int(SoftPin.PRESERVE), int(SoftPin.ENABLE)])
    if kind.code == "?":
        return st.booleans()
    bits = 8 * struct.calcsize("<" + kind.code)
    return (
        st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if kind.code.islower() else st.integers(0, (1 << bits) - 1)
    )
