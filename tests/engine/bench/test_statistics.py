from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bench.statistics import Latencies, Measurement, cpu_per_gb, median_gbps, median_ratio, merged


def latencies(*durations: int) -> Latencies:
    made = Latencies()
    made.add(durations)
    return made


def test_of_nothing_everything_is_zero() -> None:
    empty = Latencies()
    assert (len(empty), empty.average, empty.percentile(99)) == (0, 0.0, 0.0)


def test_percentiles_are_the_nearest_ranks() -> None:
    found = latencies(*range(1, 1001))
    assert found.average == 500.5
    assert found.percentile(99) == 990
    assert found.percentile(99.9) == 999
    assert found.percentile(100) == 1000
    assert found.percentile(0) == 1
    assert latencies(7).percentile(99.9) == 7


def test_one_in_a_thousand_shows_in_the_maximum_and_not_in_p999() -> None:
    found = latencies(*[10] * 999, 1_000_000)
    assert found.percentile(99.9) == 10
    assert found.percentile(99.91) == pytest.approx(1_000_000, rel=0.001)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=200), st.sampled_from([1, 50, 90, 99, 99.9, 100]))
def test_a_percentile_is_at_most_a_thousandth_too_low(durations: list[int], percent: float) -> None:
    exact = sorted(durations)[max(1, math.ceil(len(durations) * percent / 100)) - 1]
    assert exact * (1 - 2**-9) <= latencies(*durations).percentile(percent) <= exact


@given(st.lists(st.integers(0, 10**12)), st.lists(st.integers(0, 10**12)))
def test_merged_is_as_counted_together(ours: list[int], theirs: list[int]) -> None:
    whole = latencies(*ours)
    whole.merge(latencies(*theirs))
    assert whole.to_json() == latencies(*ours, *theirs).to_json()


def test_each_request_of_a_batch_counts() -> None:
    found = Latencies()
    found.add([10, 1000], weight=3)
    assert (len(found), found.average, found.percentile(50), found.percentile(51)) == (6, 505.0, 10, 1000)


def test_the_histogram_stays_small() -> None:
    chance = random.Random(1)
    found = Latencies()
    found.add(chance.randrange(1, 10**10) for _ in range(50_000))
    assert len(found.to_json()["counts"]) < 20_000
    assert len(found) == 50_000


def test_json_brings_everything_back() -> None:
    before = Measurement(1.5, 3, 3 << 20, latencies(5, 5, 123_456_789), cpu=0.25)
    after = Measurement.from_json(json.loads(json.dumps(before.to_json())))
    assert after.to_json() == before.to_json()
    assert after.latencies.percentile(50) == 5


def test_bandwidth_is_decimal() -> None:
    assert Measurement(2.0, 1, 3_000_000_000).gbps == 1.5
    assert Measurement(0.0, 0, 0).gbps == 0.0


def test_medians_are_over_rounds() -> None:
    ours = [Measurement(1.0, 1, gb * 10**9) for gb in (1, 4, 2)]
    socket = [Measurement(1.0, 1, gb * 10**9) for gb in (2, 4, 8)]
    assert median_gbps(ours) == 2
    # 1/2, 4/4 and 2/8: each round against its own baseline.
    assert median_ratio(ours, socket) == 0.5
    assert median_ratio(ours, []) is None
    assert median_ratio(ours, [Measurement(1.0, 0, 0)] * 3) is None
    assert median_gbps([]) == 0.0


def test_merged_latencies_are_of_all_rounds() -> None:
    rounds = [Measurement(1.0, 1, 1, latencies(10)), Measurement(1.0, 1, 1, latencies(30))]
    assert merged(rounds).average == 20


def test_processor_time_is_for_a_gigabyte() -> None:
    rounds = [Measurement(1.0, 1, 10**9, cpu=0.5), Measurement(1.0, 1, 3 * 10**9, cpu=1.5)]
    assert cpu_per_gb(rounds) == 0.5
    assert cpu_per_gb([]) == cpu_per_gb([Measurement(1.0, 0, 0, cpu=1.0)]) == 0.0
