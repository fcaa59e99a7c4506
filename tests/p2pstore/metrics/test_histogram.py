from __future__ import annotations

from p2pstore.metrics.histogram import SECONDS_BOUNDS, Histogram


def test_histogram() -> None:
    histogram = Histogram()
    for seconds in (0.001, 0.005, 0.3, 1e9):
        histogram.observe(seconds)
    buckets = dict(histogram.buckets())
    assert len(buckets) == len(SECONDS_BOUNDS) + 1
    assert (buckets["0.005"], buckets["0.25"], buckets["0.5"], buckets["+Inf"]) == (2, 2, 3, 4)
    assert histogram.total == 0.001 + 0.005 + 0.3 + 1e9
