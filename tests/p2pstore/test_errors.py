from __future__ import annotations

import pytest

import p2pstore.errors
from p2pstore.errors import MooncakeError, ObjectNotFound, all_errors, from_wire, to_wire
from tests.error_trees import drawn, in_code

OWN = [cls for cls in all_errors() if cls.__module__.startswith(("engine.errors", "p2pstore.errors"))]


def test_the_drawn_tree_is_the_tree() -> None:
    actual = in_code(OWN)
    assert drawn(str(p2pstore.errors.__doc__)) == actual


def test_every_class_is_exported() -> None:
    assert {cls.__name__ for cls in OWN} <= set(p2pstore.errors.__all__)
    assert p2pstore.errors.__all__ == sorted(p2pstore.errors.__all__)
    assert all(hasattr(p2pstore.errors, name) for name in p2pstore.errors.__all__)


@pytest.mark.parametrize("cls", OWN, ids=lambda cls: cls.__name__)
def test_errors_are_the_same_on_the_other_side(cls: type[MooncakeError]) -> None:
    fields: dict[str, object] = dict.fromkeys(cls.field_names(), 7)
    error = cls(**fields)
    assert str(error)
    again = from_wire(to_wire(error))
    assert (type(again), str(again), again.hint, again.exit_code) == (cls, str(error), error.hint, cls.exit_code)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "x",
        {},
        {"type": "Nonsense", "message": "m"},
        {"type": "ObjectNotFound"},
        {"type": "ObjectNotFound", "fields": {}},
        {"type": "ObjectNotFound", "fields": []},
        {"type": "AddressError", "fields": {"address": "no number", "length": 1}},
    ],
)
def test_what_is_no_error_becomes_a_plain_one(data: object) -> None:
    assert type(from_wire(data)) is MooncakeError


def test_advice_is_filled_in() -> None:
    assert ObjectNotFound(name="x").hint == "run 'mooncake list' to see what there is"
    assert p2pstore.errors.NoLivePeer(name="x", detail="d").hint.startswith("run 'mooncake info x'")
