"""``mooncake bench serve --live``: a trace of requests on real servers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column
from mooncake_cli.text import printable
from p2pstore.errors import UsageError

if TYPE_CHECKING:
    from mooncake_cli.progress import Progress
    from p2pstore.serving.simulation.trace import Request

KEY = "OPENAI_API_KEY"
"""The variable with the key that servers want, if any: a flag would show it to everybody on the machine."""

COLUMNS = (
    Column("Speed", right=True),
    Column("Requests", right=True),
    Column("Served", right=True),
    Column("TTFT s", right=True),
    Column("p90", right=True),
    Column("TBT ms", right=True),
    Column("p99", right=True),
    Column("Good/s", right=True),
    Column("Refused", right=True),
    Column("Failed", right=True),
    Column("Hits", right=True),
)


def run(
    invocation: Invocation,
    url: str,
    model: str,
    requests: Sequence[Request],
    speeds: Sequence[float],
    scale: float,
    objectives: tuple[float, float],
) -> None:
    """Play the trace once for each speed, and print what came of it. Raises ``UsageError``."""
    from p2pstore.serving.admission import Objectives  # noqa: PLC0415 - --help must not wait for it
    from p2pstore.serving.live.replay import Plan, Target, replay  # noqa: PLC0415 - as above

    output = invocation.output
    try:
        plans = [Plan(speed, scale, Objectives(*objectives)) for speed in speeds]
    except ValueError as error:
        raise UsageError(detail=str(error)) from None
    target = Target(url, model, os.environ.get(KEY, ""))
    rows: list[dict[str, Any]] = []
    for plan in plans:
        with output.progress("serve", " requests") as progress:
            told = partial(_tell, progress, len(requests))
            result = asyncio.run(replay(target, requests, plan, progress=told))
        rows.append(result.to_json())
        output.detail(_line(rows[-1]))
        for words, count in rows[-1]["errors"].items():
            output.warning(f"{count:,} of {len(requests):,} requests failed: {printable(words)}")
        if rows[-1]["late"]:
            output.warning(f"{rows[-1]['late']:,} requests were sent late: too many were under way")
    document = {"url": url, "objectives": {"ttft": objectives[0], "tbt": objectives[1]}, "rows": rows}
    human = output.table(COLUMNS, [_cells(row) for row in rows]) if output.mode == "human" else ""
    output.data(document, human=human, quiet=map(_line, rows))


def _tell(progress: Progress, total: int, done: int) -> None:
    progress.update(done, total)


def _cells(row: dict[str, Any]) -> Sequence[str]:
    return (
        f"{row['speed']:g}",
        f"{row['requests']:,}",
        f"{row['finished']:,}",
        f"{row['ttft']['mean']:.2f}",
        f"{row['ttft']['p90']:.2f}",
        f"{row['tbt']['mean'] * 1e3:.1f}",
        f"{row['tbt']['p99'] * 1e3:.1f}",
        f"{row['goodput']:.3f}",
        f"{row['rejected']:,}",
        f"{row['failed']:,}",
        "?" if row["hit_rate"] is None else f"{row['hit_rate']:.1%}",
    )


def _line(row: dict[str, Any]) -> str:
    return f"live {row['speed']:g} {row['goodput']:.3f}"
