"""The metrics: read by Prometheus's own parsers, and named as the real master names them."""

from __future__ import annotations

import re

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from p2pstore.kv.master.metrics import (
    ALSO,
    BATCH,
    COUNTERS,
    GAUGES,
    SINGLE,
    Readings,
    Segment,
    families,
    render,
    summary,
)
from p2pstore.kv.pool.stats import SIZE_BOUNDS

NASTY = 'a"b\\c\nd\u4e16'
READINGS = Readings(
    numbers={"key_count": 3, "evicted_key_count": 7, "mem_cache_hit_nums": 4, "put_start_alloc_failures": 2},
    calls={"Ping": (5, 1, 0, 0, 0), "BatchExistKey": (2, 0, 1, 7, 3), "PutStart": (3, 1, 0, 0, 0),
           "UpsertStart": (2, 0, 0, 0, 0)},
    segments=[Segment(NASTY, 5, 10), Segment("b", 1, 2), Segment(NASTY, 1, 10)],
    value_sizes=(1, 0, 2, 0, 0, 0, 0, 1),
    value_bytes=99,
    callers={"0.3.13": 2, "0.3.9": 1},
    unknown={"FlyToTheMoon": 1},
)  # fmt: skip


def as_written(name: str) -> str:
    """The Python parser of the text format, other than Prometheus itself, adds ``_total`` to each counter."""
    short = name.removesuffix("_total")
    return short if short in COUNTERS else name


def samples(openmetrics: bool) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    read = read_openmetrics if openmetrics else read_text
    found = [
        sample for family in read(render(families(READINGS), openmetrics=openmetrics)) for sample in family.samples
    ]
    values = {(as_written(sample.name), tuple(sorted(sample.labels.items()))): sample.value for sample in found}
    assert len(values) == len(found), "a sample stands there twice"
    return values


def test_both_formats_are_read_and_say_the_same() -> None:
    text, openmetrics = samples(openmetrics=False), samples(openmetrics=True)
    assert text == openmetrics
    assert text["master_key_count", ()] == 3
    assert text["master_evicted_key_count", ()] == 7
    assert text["mem_cache_hit_nums_", ()] == 4
    assert text["master_put_start_alloc_failures_total", ()] == 2
    assert text["master_ping_failures_total", ()] == 1
    assert text["master_batch_exist_key_items_total", ()] == 7
    assert text["master_batch_exist_key_partial_successes_total", ()] == 1
    assert text["mooncake_store_callers", (("version", "0.3.13"),)] == 2
    assert text["mooncake_store_unknown_calls_total", (("call", "FlyToTheMoon"),)] == 1


def test_segments_of_one_name_are_one() -> None:
    found = samples(openmetrics=True)
    assert found["segment_allocated_bytes", (("segment", NASTY),)] == 6
    assert found["segment_total_capacity_bytes", (("segment", NASTY),)] == 20


def test_upserts_are_counted_with_puts() -> None:
    assert samples(openmetrics=False)["master_put_start_requests_total", ()] == 5
    assert set(ALSO.values()) <= {*SINGLE, *BATCH}


def test_sizes_of_values() -> None:
    found = samples(openmetrics=False)
    below = [found["master_value_size_bytes_bucket", (("le", f"{bound:.1f}"),)] for bound in SIZE_BOUNDS]
    assert below == [1, 1, 3, 3, 3, 3, 3]
    assert found["master_value_size_bytes_bucket", (("le", "+Inf"),)] == 4
    assert (found["master_value_size_bytes_count", ()], found["master_value_size_bytes_sum", ()]) == (4, 99)


def test_types_of_the_text_format_are_upstreams() -> None:
    """``master_evicted_key_count`` is a counter there, though OpenMetrics allows none of that name."""
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", render(families(READINGS)), re.MULTILINE))
    assert {types[name] for name in COUNTERS} == {"counter"}
    assert {types[name] for name in GAUGES} == {"gauge"}
    lines = render(families(READINGS), openmetrics=True)
    assert "# TYPE master_evicted_key_count unknown" in lines
    assert "# TYPE master_ping_requests counter" in lines


def test_nothing_is_a_state_like_another() -> None:
    empty = render(families(Readings()), openmetrics=True)
    assert [family.name for family in read_openmetrics(empty)]


def test_one_line_for_people() -> None:
    line = summary(READINGS)
    assert "Keys: 3 (soft-pinned: 0)" in line
    assert "PutStart=4/5" in line
    assert "BatchExistKey=2/2 (4/7 items)" in line
    assert "Unknown calls: 1" in line
    assert "\n" not in line
    used = summary(Readings({"allocated_bytes": 1 << 20, "total_capacity_bytes": 4 << 20}))
    assert used.startswith("Mem Storage: 1.0 MiB / 4.0 MiB (25.0%)")
