from __future__ import annotations

import pytest

from p2pstore.metrics.metric import Kind, Metric


@pytest.mark.parametrize(
    ("kind", "samples"),
    [
        (Kind.COUNTER, ("a_total",)),
        (Kind.GAUGE, ("a",)),
        (Kind.HISTOGRAM, ("a_bucket", "a_sum", "a_count")),
        (Kind.INFO, ("a_info",)),
    ],
)
def test_the_names_that_queries_have(kind: Kind, samples: tuple[str, ...]) -> None:
    assert Metric[None]("a", kind, "", lambda _: 0).samples == samples
