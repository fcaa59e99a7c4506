"""The parts of a proxy that serving a request takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from p2pstore.serving.proxy.dispatch import Dispatcher
from p2pstore.serving.proxy.keeper import Keeper
from p2pstore.serving.proxy.knowing import Knowing
from p2pstore.serving.proxy.options import Options
from p2pstore.serving.proxy.stats import Stats
from p2pstore.serving.proxy.upstream import Upstream


@dataclass(frozen=True)
class Parts:
    """Made once, complete."""

    options: Options
    dispatcher: Dispatcher
    keeper: Keeper
    upstream: Upstream
    knowing: Knowing
    stats: Stats
    clock: Callable[[], float]
