from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine.errors
from engine.errors import (
    AddressError,
    MetadataRefused,
    MetadataUnavailable,
    MooncakeError,
    RangeRefused,
    RemoteError,
    SourceChanged,
    StorageError,
)
from tests.error_trees import drawn, in_code

OWN = [each for each in vars(engine.errors).values() if isinstance(each, type) and issubclass(each, MooncakeError)]


def test_the_drawing_is_the_tree() -> None:
    assert drawn(str(engine.errors.__doc__)) == in_code(OWN)


@pytest.mark.parametrize("cls", OWN, ids=lambda cls: cls.__name__)
def test_the_fields_that_a_class_names_are_all_that_it_needs(cls: type[MooncakeError]) -> None:
    error = cls(**dict.fromkeys(cls.field_names(), 7))
    assert str(error)
    assert "{" not in str(error) + error.hint


@pytest.mark.parametrize("cls", OWN, ids=lambda cls: cls.__name__)
def test_what_the_user_reads_is_a_line_without_a_full_stop(cls: type[MooncakeError]) -> None:
    for text in (cls.sentence, cls.advice):
        assert "\n" not in text
        assert not text.endswith(".")
        assert text == text.strip()


@given(st.text())
def test_a_peers_words_are_never_taken_for_a_template(words: str) -> None:
    assert str(RemoteError(peer="p", detail=words)) == f"peer p: {words}"


@pytest.mark.parametrize("cls", OWN, ids=lambda cls: cls.__name__)
def test_an_error_comes_through_a_pool_of_processes_as_it_was(cls: type[MooncakeError]) -> None:
    error = cls(**dict.fromkeys(cls.field_names(), 7))
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is cls
    assert (str(found), found.hint, found.fields) == (str(error), error.hint, error.fields)


def test_a_field_that_is_missing_is_noticed_where_the_error_is_made() -> None:
    with pytest.raises(KeyError, match="length"):
        AddressError(address=1)


def test_only_a_peers_faults_may_ban_a_peer() -> None:
    assert issubclass(RangeRefused, RemoteError)
    for ours in (SourceChanged, StorageError, MetadataUnavailable, MetadataRefused, AddressError):
        assert not issubclass(ours, RemoteError)
