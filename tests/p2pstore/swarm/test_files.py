"""What is on its way is spread over the files of an object."""

from __future__ import annotations

from collections import Counter

import pytest

from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.events import Fetch, Fetched, PeerAdded
from p2pstore.swarm.files import Files
from p2pstore.swarm.planner import Planner
from tests.p2pstore.swarm.planners import MIB, bits

CHUNKS = 32
"""Of each file."""
COUNT = 8
"""Files."""
FIRST_CHUNKS = range(0, COUNT * CHUNKS, CHUNKS)
FILES = Files(FIRST_CHUNKS)
CONNECTIONS = 8


def test_a_chunk_lies_in_the_file_that_begins_last_before_it() -> None:
    files = Files([0, 3, 3, 5])  # the second file has no chunk
    assert [files.of(chunk) for chunk in range(9)] == [0, 0, 0, 2, 2, 3, 3, 3, 3]


@pytest.mark.parametrize("first_chunks", [(), (0,)])
def test_without_several_files_all_lie_in_one(first_chunks: tuple[int, ...]) -> None:
    files = Files(first_chunks)
    assert not files
    assert {files.of(chunk) for chunk in range(9)} == {0}


def test_the_file_with_the_fewest_runs_is_taken_and_the_first_drawn_where_several_have_as_few() -> None:
    files = Files([0, 10, 20, 30])
    assert files.quietest([5, 15, 25, 16], [range(2), range(22, 23)]) == 15
    assert files.quietest([25, 5], []) == 25
    assert files.quietest([], [range(2)]) is None


def planner(files: Files | None, seed: int) -> Planner:
    count = COUNT * CHUNKS
    return Planner([4 * MIB] * count, Bitmap(count), seed=seed, files=files)


def most_at_once(plan: Planner) -> list[int]:
    """The most runs of one file that are under way, each time when the oldest has come and another is asked for."""
    origin = PeerAdded("seed", bits(CHUNKS * COUNT, range(CHUNKS * COUNT)), connections=CONNECTIONS)
    under_way = [action.run for action in plan.handle(origin) if isinstance(action, Fetch)]
    now, most = 0.0, []
    while under_way:
        most.append(max(Counter(FILES.of(run.start) for run in under_way).values()))
        now += 0.1
        actions = plan.handle(Fetched("seed", under_way.pop(0), now))
        under_way += [action.run for action in actions if isinstance(action, Fetch)]
    assert plan.done
    return most


@pytest.mark.parametrize("seed", range(5))
def test_a_lone_origin_is_asked_for_all_files_at_once(seed: int) -> None:
    spread, by_chance = most_at_once(planner(FILES, seed)), most_at_once(planner(None, seed))
    busy = len(spread) // 2  # until then every file has much left
    assert max(spread[:busy]) <= 2 * CONNECTIONS // COUNT + 1
    assert max(by_chance[:busy]) > max(spread[:busy]), "what is compared with is chance"
