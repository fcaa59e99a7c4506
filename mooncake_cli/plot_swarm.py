"""Drawing a swarm: how far everybody is over time, and who sent how much to whom. See ``mooncake_cli.plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mooncake_cli.plot import check, save

MAX_NAMED = 12
"""Lines that a legend names; with more nodes it would hide them."""

MAX_FIGURES = 16
"""Receivers up to which each cell of the matrix says its amount."""

_DOTS = 120
MIB = 1 << 20


def draw_broadcast(path: Path, document: dict[str, Any]) -> None:
    """Completion of each node over time, and the matrix of bytes from node to node.

    ``document`` is ``Broadcast.to_json``. Raises ``UsageError`` without matplotlib, and ``StorageError``.
    """
    check(path)
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import

    nodes = document["nodes"]
    figure = Figure(figsize=(12.0, 5.0), dpi=_DOTS, layout="constrained")
    left, right = figure.subplots(1, 2)
    for node in nodes:
        times = [0.0, *(at for at, _ in node["progress"])]
        parts = [0.0, *(100 * done / document["size"] for _, done in node["progress"])]
        left.plot(times, parts, label=node["node"])
    if document["bound"] is not None:
        left.axvline(document["bound"], color="black", linestyle="--", linewidth=1, label="bound")
    _over_time(left, named=len(nodes) <= MAX_NAMED)
    sources = ["seed", *(node["node"] for node in nodes)]
    amounts = [[node["peers"].get(name, 0) / MIB for name in sources] for node in nodes]
    image = right.imshow(amounts, aspect="auto", cmap="viridis")
    figure.colorbar(image, ax=right, label="MiB")
    right.set_xticks(range(len(sources)), sources, rotation=90)
    right.set_yticks(range(len(nodes)), [node["node"] for node in nodes])
    right.set_xlabel("from")
    right.set_ylabel("to")
    if len(nodes) <= MAX_FIGURES:
        middle = max(map(max, amounts)) / 2
        for y, row in enumerate(amounts):
            for x, amount in enumerate(row):
                if amount:
                    color = "black" if amount > middle else "white"
                    right.text(x, y, f"{amount:.0f}", ha="center", va="center", fontsize=8, color=color)
    save(figure, path)


def draw_simulation(path: Path, document: dict[str, Any]) -> None:
    """How far the slowest, the average and the fastest receiver were over time. ``document``: ``Outcome.to_json``."""
    check(path)
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import

    figure = Figure(figsize=(8.0, 5.0), dpi=_DOTS, layout="constrained")
    axes = figure.add_subplot()
    times = [sample[0] for sample in document["progress"]]
    least, mean, most = ([100 * sample[place] for sample in document["progress"]] for place in (1, 2, 3))
    axes.fill_between(times, least, most, alpha=0.25, label="slowest to fastest")
    axes.plot(times, mean, label="mean")
    axes.axvline(document["bound"], color="black", linestyle="--", linewidth=1, label="bound")
    _over_time(axes, named=True)
    save(figure, path)


def _over_time(axes: Any, *, named: bool) -> None:
    axes.set_xlabel("seconds")
    axes.set_ylabel("% of the object")
    axes.set_ylim(0, 102)
    axes.set_xlim(left=0)
    axes.grid(visible=True, alpha=0.3)
    if named:
        axes.legend()
