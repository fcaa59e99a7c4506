"""``mooncake bench store``: how fast a pooled store puts and gets, ours and upstream's in turns."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mooncake_cli.bench_options import Driven, Duration, Rounds, Threads, Whose, block, chosen, numbers
from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column

if TYPE_CHECKING:
    from p2pstore.bench.store import Row

EXAMPLES = {
    "store": (
        "mooncake bench store",
        "mooncake bench store --engine both --size 4KiB,128KiB,1MiB --batch 1,32 --threads 1,4",
        "mooncake bench store --engine both --operation get --size 64KiB:16MiB --plot get.png",
        "mooncake bench store --where own --json",
    )
}

COLUMNS = (
    Column("OP"),
    Column("SIZE", right=True),
    Column("BATCH", right=True),
    Column("THREADS", right=True),
    Column("ENGINE", style="bold"),
    Column("KEYS/S", right=True),
    Column("GB/S", right=True),
    Column("TO UPSTREAM", right=True),
    Column("P50 (US)", right=True),
    Column("P99 (US)", right=True),
)


class Place(str, Enum):
    """Whose memory the values lie in."""

    OTHER = "other"
    OWN = "own"


def store(
    ctx: typer.Context,
    operation: Annotated[
        str, typer.Option("--operation", metavar="LIST", help="put, get and exist, separated by commas.")
    ] = "put,get",
    size: Annotated[
        str, typer.Option("--size", metavar="SIZES", help="Sizes of a value: a list, or FIRST:LAST doubling.")
    ] = "4KiB,1MiB",
    batch: Annotated[
        str, typer.Option("--batch", metavar="NUMBERS", help="Keys of a call: a list, or FIRST:LAST doubling.")
    ] = "1,32",
    threads: Threads = "1",
    driven: Whose = Driven.OURS,
    where: Annotated[
        Place, typer.Option("--where", metavar="MEMORY", help="Whose memory values lie in: other (a process) or own.")
    ] = Place.OTHER,
    duration: Duration = 3.0,
    rounds: Rounds = 3,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw bandwidth over the size into FILE (.png, .svg)."),
    ] = None,
) -> None:
    """Measure how fast a pooled store puts, gets and looks up.

    Each engine is a master, a process that gives memory and a client, all on this machine; nothing else is touched.
    In every round the engines have the same time, one after the other; TO UPSTREAM is the median of the rounds. Values
    are compared once before a case is measured. ours-tcp is ours where processes of one host do not hand one another
    their memory, as across machines.
    """
    from p2pstore.bench.store import Engine, Operation, Plan, Where, run, sweep  # noqa: PLC0415 - --help must not wait for it

    invocation: Invocation = ctx.obj
    output = invocation.output
    if plot is not None:
        from mooncake_cli.plot import check  # noqa: PLC0415 - as above

        check(plot)
    ours = (Engine.OURS, Engine.OURS_TCP) if where is Place.OTHER else (Engine.OURS,)
    engines = {
        Driven.OURS: ours,
        Driven.MOONCAKE: (Engine.MOONCAKE,),
        Driven.BOTH: (*ours, Engine.MOONCAKE),
    }[driven]
    plan = Plan(
        cases=sweep(
            chosen("--operation", operation, Operation),
            numbers("--size", size),
            numbers("--batch", batch),
            numbers("--threads", threads),
        ),
        engines=engines,
        where=Where(where.value),
        duration=duration,
        rounds=rounds,
    )
    rows = []
    for row in run(plan):
        rows.append(row)
        output.detail(_line(row))
    documents = [row.to_json() for row in rows]
    if plot is not None:
        from mooncake_cli.plot import draw  # noqa: PLC0415 - as above

        draw(plot, [_drawn(each) for each in documents], what="value size")
    human = output.table(COLUMNS, [_cells(each) for each in documents]) if output.mode == "human" else ""
    output.data(_document(where, duration, documents), human=human, quiet=(_line(row) for row in rows))


def _cells(row: dict[str, Any]) -> Sequence[str]:
    return (
        row["operation"],
        block(row["size"]),
        str(row["batch"]),
        str(row["threads"]),
        row["engine"],
        f"{row['keys_per_second']:,.0f}",
        f"{row['gbps']:.3f}" if row["operation"] != "exist" else "-",
        "-" if row["ratio"] is None else f"{row['ratio']:.2f}",
        f"{row['p50_us']:.0f}",
        f"{row['p99_us']:.0f}",
    )


def _line(row: Row) -> str:
    case = row.case
    name = f"{case.operation.value} {block(case.size)} x {case.batch} x {case.threads}"
    return f"{name}: {row.engine.value} {row.keys:,.0f} keys/s"


def _drawn(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the drawing of the engine's bench has it."""
    return {**row, "block_size": row["size"], "batch_size": row["batch"], "socket_gbps": None}


def _document(where: Place, duration: float, rows: list[dict[str, Any]]) -> dict[str, Any]:
    from engine.bench import wheel  # noqa: PLC0415 - --help must not wait for it

    version = wheel.version() if any(row["engine"] == "mooncake" for row in rows) else None
    return {"where": where.value, "duration": duration, "mooncake_version": version, "rows": rows}
