"""The pooled store's errors: the tree is as it is drawn, and they cross to other processes."""

from __future__ import annotations

import pickle

import pytest

import p2pstore.kv.errors
from p2pstore.errors import ListenRefused, MooncakeError, Refused, StorageError, all_errors
from tests.error_trees import drawn, in_code

OWN = [cls for cls in all_errors() if cls.__module__ == "p2pstore.kv.errors"]


def test_the_drawn_tree_is_the_tree() -> None:
    assert drawn(str(p2pstore.kv.errors.__doc__)) == in_code(
        [MooncakeError, Refused, StorageError, ListenRefused, *OWN]
    )


@pytest.mark.parametrize("cls", OWN, ids=lambda cls: cls.__name__)
def test_a_pool_of_processes_can_send_them(cls: type[MooncakeError]) -> None:
    error = cls(**dict.fromkeys(cls.field_names(), 7))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.hint) == (cls, str(error), error.hint)
