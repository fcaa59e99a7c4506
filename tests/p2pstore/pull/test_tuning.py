"""How many workers a get has, and what they receive into: by cores, place, and whether there is one file or many."""

from __future__ import annotations

import pytest

from p2pstore.pull.tuning import (
    CROWD,
    PIECE_BYTES,
    SMALL_PIECE_BYTES,
    Facts,
    Landing,
    Place,
    Tuning,
    tuned,
)

GB = 10**9
ONE = Landing.of_files([8 * GB])
SHARDS = Landing.of_files([GB] * 8)
HOST = Landing(Place.HOST)
GPU = Landing(Place.GPU)


@pytest.mark.parametrize(
    ("cores", "landing", "workers"),
    [
        (1, ONE, 2),
        (2, ONE, 2),
        (16, ONE, 2),
        (1, SHARDS, 2),
        (2, SHARDS, 3),
        (3, SHARDS, 4),
        (16, SHARDS, 4),
        (2, HOST, 3),
        (16, HOST, 4),
        (2, GPU, 2),
        (8, GPU, 4),
        (16, GPU, 8),
        (128, GPU, 8),
    ],
)
def test_workers_of_the_only_source(cores: int, landing: Landing, workers: int) -> None:
    assert tuned(Facts(cores, landing)).workers(0) == workers


@pytest.mark.parametrize(
    ("sizes", "side_by_side"),
    [
        ([], 1.0),
        ([0, 0], 1.0),
        ([7], 1.0),
        ([GB] * 8, 8.0),
        ([GB, GB // 2], 1.5),
        ([8 * GB, *[1000] * 200], pytest.approx(1.0, abs=0.001)),
    ],
)
def test_files_side_by_side(sizes: list[int], side_by_side: float) -> None:
    landing = Landing.of_files(sizes)
    assert landing.place is Place.FILES
    assert landing.side_by_side == side_by_side


def test_a_large_file_among_small_ones_is_one_file() -> None:
    assert tuned(Facts(16, Landing.of_files([8 * GB, *[1000] * 200]))).workers(0) == 2
    assert tuned(Facts(16, Landing.of_files([2 * GB, GB]))).workers(0) == 4


@pytest.mark.parametrize("landing", [ONE, SHARDS, HOST, GPU])
def test_what_the_user_says_holds_for_each_source(landing: Landing) -> None:
    tuning = tuned(Facts(16, landing), 5)
    assert [tuning.workers(others) for others in (0, 5, 100)] == [5, 5, 5]


def test_in_a_swarm_each_source_has_few_workers_with_small_buffers() -> None:
    tuning = tuned(Facts(16, SHARDS))
    others, found = 0, []
    for _ in range(16):
        found.append((tuning.workers(others), tuning.piece_bytes(others)))
        others += found[-1][0]
    assert found == [(4, PIECE_BYTES)] * 2 + [(2, SMALL_PIECE_BYTES)] * 14
    assert found[0][0] * 2 == CROWD
    total = sum(count * size for count, size in found)
    assert total <= 16 << 20, "the buffers of one get"


def test_sizes_that_are_given_are_kept() -> None:
    tuning = Tuning(2, 1, piece=64, small_piece=16)
    assert [tuning.piece_bytes(others) for others in (0, CROWD - 1, CROWD)] == [64, 64, 16]
