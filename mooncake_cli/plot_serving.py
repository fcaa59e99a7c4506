"""Drawing what requests met with under each policy. See ``mooncake_cli.plot``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mooncake_cli.plot import check, save

_DOTS = 120
_ROW_INCHES = 0.3


def draw_serving(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """TTFT, TBT, goodput, refused requests and prefill seconds of each row, and the load over time.

    ``rows`` are those of ``Outcome.to_json`` of a simulated cluster. Raises ``UsageError`` without matplotlib, and
    ``StorageError``.
    """
    check(path)
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import

    height = 4.0 + 2 * _ROW_INCHES * len(rows)
    figure = Figure(figsize=(16.0, height), dpi=_DOTS, layout="constrained")
    names = [_name(row, rows) for row in rows]
    ((first, second, third), (fourth, fifth, sixth)) = figure.subplots(2, 3)
    _bars(
        first,
        names,
        "TTFT (s): mean, and p90 beside it",
        [[row["ttft"][key] for row in rows] for key in ("mean", "p90")],
    )
    _bars(
        second,
        names,
        "TBT (s): mean, and p99 beside it",
        [[row["tbt"][key] for row in rows] for key in ("mean", "p99")],
    )
    _bars(third, names, "requests/s within the objectives", [[row["goodput"] for row in rows]])
    _bars(fourth, names, "requests refused", [[row["rejected"] for row in rows]])
    kinds = ("prefill_seconds", "missed_seconds", "wasted_seconds")
    _bars(fifth, names, "prefill (s): all, missed, wasted", [[row[kind] for row in rows] for kind in kinds])
    for name, row in zip(names, rows, strict=True):
        sixth.plot([at[0] for at in row["load"]], [at[1] for at in row["load"]], label=name, linewidth=1)
    sixth.set_xlabel("seconds")
    sixth.set_title("prefill that waits (s for each instance)")
    sixth.set_ylim(bottom=0)
    sixth.grid(visible=True, alpha=0.3)
    sixth.legend(fontsize=7)
    save(figure, path)


def _name(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """What tells a row from the others."""
    words = [row["policy"]]
    if len({each["admission"] for each in rows}) > 1:
        words.append(row["admission"])
    if len({each["speed"] for each in rows}) > 1:
        words.append(f"x{row['speed']:g}")
    return " ".join(words)


def _bars(axes: Any, names: Sequence[str], title: str, values: Sequence[Sequence[float]]) -> None:
    wide = 0.8 / len(values)
    for place, each in enumerate(values):
        axes.barh([at + place * wide for at in range(len(names))], each, height=wide)
    axes.set_yticks([at + (len(values) - 1) * wide / 2 for at in range(len(names))], names, fontsize=8)
    axes.invert_yaxis()
    axes.set_title(title)
    axes.grid(visible=True, axis="x", alpha=0.3)
