"""How many workers a get has, and what they receive into: by cores, and by where the bytes go."""

from __future__ import annotations

import pytest

from p2pstore.pull.tuning import CROWD, PIECE_BYTES, SMALL_PIECE_BYTES, Facts, Place, Tuning, tuned

GB = 10**9
MIB = 1 << 20


@pytest.mark.parametrize(
    ("cores", "place", "workers"),
    [
        (1, Place.FILE, 2),
        (2, Place.FILE, 4),
        (16, Place.FILE, 4),
        (128, Place.FILE, 4),
        (1, Place.FILES, 2),
        (2, Place.FILES, 4),
        (8, Place.FILES, 4),
        (16, Place.FILES, 8),
        (1, Place.HOST, 2),
        (2, Place.HOST, 4),
        (12, Place.HOST, 6),
        (16, Place.HOST, 8),
        (1, Place.GPU, 2),
        (2, Place.GPU, 2),
        (8, Place.GPU, 4),
        (16, Place.GPU, 8),
        (128, Place.GPU, 8),
    ],
)
def test_workers_of_the_only_source(cores: int, place: Place, workers: int) -> None:
    assert tuned(Facts(cores, place, GB)).workers(0) == workers


@pytest.mark.parametrize(("size", "workers"), [(0, 2), (MIB, 2), (23 * MIB, 2), (24 * MIB, 3), (64 * MIB, 8), (GB, 8)])
def test_little_is_worth_few_workers(size: int, workers: int) -> None:
    assert tuned(Facts(16, Place.HOST, size)).workers(0) == workers


@pytest.mark.parametrize("place", Place)
def test_what_the_user_says_holds_for_each_source(place: Place) -> None:
    tuning = tuned(Facts(16, place, 1), 5)
    assert [tuning.workers(others) for others in (0, 5, 100)] == [5, 5, 5]


def test_in_a_swarm_each_source_has_few_workers_with_small_buffers() -> None:
    tuning = tuned(Facts(4, Place.FILES, GB))
    others, found = 0, []
    for _ in range(16):
        found.append((tuning.workers(others), tuning.piece_bytes(others)))
        others += found[-1][0]
    assert found == [(4, PIECE_BYTES)] * 2 + [(2, SMALL_PIECE_BYTES)] * 14
    assert found[0][0] * 2 == CROWD
    total = sum(count * size for count, size in found)
    assert total <= 16 << 20, "the buffers of one get"


def test_on_many_cores_two_sources_have_as_many_each() -> None:
    tuning = tuned(Facts(16, Place.HOST, GB))
    assert [(tuning.workers(others), tuning.piece_bytes(others)) for others in (0, 8, 16)] == [
        (8, PIECE_BYTES), (8, PIECE_BYTES), (2, SMALL_PIECE_BYTES)
    ]  # fmt: skip


def test_sizes_that_are_given_are_kept() -> None:
    tuning = Tuning(2, 1, piece=64, small_piece=16)
    assert [tuning.piece_bytes(others) for others in (0, CROWD - 1, CROWD)] == [64, 64, 16]
