"""How many workers a get has, and what they receive into: by cores, and by where the bytes go."""

from __future__ import annotations

import pytest

from p2pstore.pull.tuning import CROWD, LARGE_PIECE_BYTES, PIECE_BYTES, SMALL_PIECE_BYTES, Facts, Place, Tuning, tuned

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
        (4, Place.FILES, 4),
        (8, Place.FILES, 8),
        (16, Place.FILES, 16),
        (128, Place.FILES, 16),
        (1, Place.HOST, 2),
        (2, Place.HOST, 4),
        (12, Place.HOST, 9),
        (16, Place.HOST, 12),
        (1, Place.GPU, 2),
        (2, Place.GPU, 2),
        (8, Place.GPU, 4),
        (16, Place.GPU, 8),
        (128, Place.GPU, 8),
    ],
)
def test_workers_of_the_only_source(cores: int, place: Place, workers: int) -> None:
    assert tuned(Facts(cores, place, GB)).workers(0) == workers


@pytest.mark.parametrize(("size", "workers"), [(0, 2), (MIB, 2), (23 * MIB, 2), (24 * MIB, 3), (64 * MIB, 8), (GB, 12)])
def test_little_is_worth_few_workers(size: int, workers: int) -> None:
    assert tuned(Facts(16, Place.HOST, size)).workers(0) == workers


@pytest.mark.parametrize("place", Place)
def test_what_the_user_says_holds_for_each_source(place: Place) -> None:
    tuning = tuned(Facts(16, place, 1), 5)
    assert [tuning.workers(others) for others in (0, 5, 100)] == [5, 5, 5]


def over(tuning: Tuning, sources: int) -> list[tuple[int, int]]:
    """The workers of each source, and the bytes that each of them receives into."""
    others, found = 0, []
    for _ in range(sources):
        found.append((tuning.workers(others), tuning.piece_bytes(others)))
        others += found[-1][0]
    return found


def test_in_a_swarm_each_source_has_few_workers_with_small_buffers() -> None:
    found = over(tuned(Facts(4, Place.FILES, GB)), 16)
    assert found == [(4, PIECE_BYTES)] + [(2, PIECE_BYTES)] * 2 + [(2, SMALL_PIECE_BYTES)] * 13
    assert sum(count for count, _ in found[:3]) == CROWD
    total = sum(count * size for count, size in found)
    assert total <= 16 << 20, "the buffers of one get"


@pytest.mark.parametrize(("place", "first"), [(Place.HOST, 12), (Place.GPU, 8)])
def test_several_sources_have_little_more_than_one_as_one_interpreter_has_no_use_for_it(
    place: Place, first: int
) -> None:
    found = over(tuned(Facts(16, place, GB)), 4)
    assert [count for count, _ in found] == [first, 2, 2, 2]


@pytest.mark.parametrize("connections", [0, 3])
def test_with_many_cores_many_files_are_written_in_large_pieces(connections: int) -> None:
    for place in Place:
        (_, piece), (_, next_piece) = over(tuned(Facts(16, place, GB), connections), 2)
        assert piece == (LARGE_PIECE_BYTES if place is Place.FILES else PIECE_BYTES)
        assert next_piece <= PIECE_BYTES, "each further source costs memory"
    assert tuned(Facts(4, Place.FILES, GB), connections).piece == PIECE_BYTES


def test_sizes_that_are_given_are_kept() -> None:
    tuning = Tuning(2, 1, piece=64, small_piece=16)
    assert [tuning.piece_bytes(others) for others in (0, CROWD - 1, CROWD)] == [64, 64, 16]
