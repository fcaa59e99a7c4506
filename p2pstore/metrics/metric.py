"""One row of a table of metrics: what it is called, what it means, and where it is read. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from p2pstore.metrics.histogram import Histogram

S = TypeVar("S")

Value = float | Mapping[tuple[str, ...], float] | Histogram
"""One number, or one for each combination of the labels' values; a histogram for ``Kind.HISTOGRAM``."""


class Kind(enum.Enum):
    """What Prometheus calls it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"
    """A gauge that is 1; what it tells is in its labels."""


SUFFIXES: Mapping[Kind, tuple[str, ...]] = {
    Kind.COUNTER: ("_total",),
    Kind.GAUGE: ("",),
    Kind.HISTOGRAM: ("_bucket", "_sum", "_count"),
    Kind.INFO: ("_info",),
}
"""What stands behind a metric's name in its samples'."""


@dataclass(frozen=True)
class Metric(Generic[S]):
    """``read`` gets what is measured, and does no work for each object or peer that there is."""

    name: str
    kind: Kind
    help: str
    read: Callable[[S], Value]
    labels: tuple[str, ...] = ()

    @property
    def samples(self) -> tuple[str, ...]:
        """The names by which queries find it."""
        return tuple(self.name + suffix for suffix in SUFFIXES[self.kind])
