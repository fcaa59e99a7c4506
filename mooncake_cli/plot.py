"""Drawing a bench's figures with matplotlib, which is the extra ``plot``."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from p2pstore.errors import PackageMissing, StorageError, UsageError

FORMATS = (".png", ".svg", ".pdf")

_SIZE = (8.0, 5.0)
_DOTS = 120


def check(path: Path) -> None:
    """See before a long bench that its figures can be drawn into ``path``. Raises ``UsageError``."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(detail=f"{path} ends in none of {', '.join(FORMATS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise PackageMissing(what="drawing", package="matplotlib", install="mooncake-cli[plot]")


def draw(path: Path, rows: Sequence[dict[str, Any]], what: str = "block size") -> None:
    """Bandwidth (GB/s) over ``what``, a line for each engine, operation, batch size and number of threads.

    Dashed in the same colour: what the socket loop reached, where there was one. ``rows`` are those of ``Row.to_json``
    of the engine's bench. Raises ``UsageError`` without matplotlib, and ``StorageError``.
    """
    check(path)
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import

    figure = Figure(figsize=_SIZE, dpi=_DOTS, layout="constrained")
    axes = figure.add_subplot()
    for label, line in _lines(rows).items():
        line.sort(key=lambda row: row["block_size"])
        sizes = [row["block_size"] for row in line]
        (drawn,) = axes.plot(sizes, [row["gbps"] for row in line], marker="o", label=label)
        if all(row["socket_gbps"] is not None for row in line):
            bound = [row["socket_gbps"] for row in line]
            axes.plot(sizes, bound, linestyle="--", linewidth=1, alpha=0.6, color=drawn.get_color())
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"{what} (bytes)")
    dashed = "; dashed: bare socket loop" if any(row["socket_gbps"] is not None for row in rows) else ""
    axes.set_ylabel(f"bandwidth (GB/s){dashed}")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    save(figure, path)


def draw_layouts(path: Path, document: dict[str, Any]) -> None:
    """The time of each layout of ``bench gpu``, from the quickest round to the slowest, the median marked.

    ``document`` is ``GpuResult.to_json``. Raises ``UsageError`` without matplotlib, and ``StorageError``.
    """
    check(path)
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    rows = document["rows"]
    figure = Figure(figsize=_SIZE, dpi=_DOTS, layout="constrained")
    axes = figure.add_subplot()
    medians = [row["seconds"] for row in rows]
    reach = [
        [row["seconds"] - row["least_seconds"] for row in rows],
        [row["most_seconds"] - row["seconds"] for row in rows],
    ]
    axes.bar(
        [f"{row['layout']}\n{row['devices']} GPU{'s'[: row['devices'] != 1]}" for row in rows], medians, yerr=reach
    )
    axes.set_ylabel(f"seconds for {document['bytes'] / 1e9:.2f} GB over {document['transport']}")
    axes.grid(visible=True, axis="y", alpha=0.3)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a figure of matplotlib. Raises ``StorageError``."""
    try:
        figure.savefig(path)
    except OSError as error:
        raise StorageError(path=str(path), detail=error.strerror or str(error)) from None


def _lines(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each line, by its label; what all rows share is left out of the labels."""
    names = ("engine", "operation", "batch_size", "threads")
    differing = [name for name in names if len({row[name] for row in rows}) > 1] or ["engine"]
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        label = ", ".join(_word(name, row[name]) for name in differing)
        lines.setdefault(label, []).append(row)
    return lines


def _word(name: str, value: object) -> str:
    unit = {"batch_size": "batch of ", "threads": "threads: "}.get(name, "")
    return f"{unit}{value}"
