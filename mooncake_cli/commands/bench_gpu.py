"""``mooncake bench gpu``: a checkpoint from agents of this machine into one GPU, and into several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine import signals
from mooncake_cli.bench_options import size_of
from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column
from mooncake_cli.text import printable
from p2pstore.calls.given import way
from p2pstore.objects.units import format_seconds, format_size

EXAMPLES = {
    "gpu": (
        "mooncake bench gpu                               # all GPUs, 8 GiB",
        "mooncake bench gpu --devices cuda:0,cuda:1 --layouts one,shard --plot gpus.png",
        "mooncake bench gpu --devices cuda:0,cuda:0       # two copies on one GPU",
        "mooncake bench gpu --size 16GiB --agents 2 --rounds 9 --json",
    )
}


def gpu(
    ctx: typer.Context,
    size: Annotated[str, typer.Option("--size", metavar="SIZE", help="Size of the checkpoint.")] = "8GiB",
    devices: Annotated[
        str,
        typer.Option("--devices", metavar="LIST", help="GPUs, one perhaps several times [default: all; one twice]."),
    ] = "",
    layouts: Annotated[
        str,
        typer.Option("--layouts", metavar="LIST", help="one (all to the first GPU), replicate and shard (to all)."),
    ] = "one,replicate,shard",
    rounds: Annotated[int, typer.Option("--rounds", metavar="NUMBER", help="Rounds that count.")] = 5,
    agents: Annotated[int, typer.Option("--agents", metavar="NUMBER", help="Agents that have it.")] = 1,
    transport: Annotated[str, typer.Option("--transport", metavar="WAY", help="By what it comes.")] = "tcp",
    connections: Annotated[
        int, typer.Option("--connections", metavar="NUMBER", min=0, help="To each agent [default: as many as suit].")
    ] = 0,
    directory: Annotated[
        Path | None,
        typer.Option("--directory", metavar="DIR", help="Where the checkpoint lies [default: in memory, if it fits]."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the times into FILE (.png, .svg).")
    ] = None,
) -> None:
    """Measure how fast tensors come to one GPU and to several.

    It writes a checkpoint, starts an etcd and agents that have it, and loads its tensors with PyTorch: all to the first
    GPU, the same to all GPUs, and a rank's slices to each. Each round takes each of them once in a new order, and one
    round before does not count. After each, all bytes on all GPUs are compared with the files.

    Times are medians. 'x one' is the time over that of all to one GPU, and 'x object' what agents sent over TCP, in
    times the object.
    """
    from p2pstore.bench.gpu import GpuPlan, TorchGpus, measure  # noqa: PLC0415 - --help must not wait for it

    invocation: Invocation = ctx.obj
    output = invocation.output
    transport, _ = way(transport, ())
    plan = GpuPlan(
        size=size_of("--size", size),
        devices=_listed(devices),
        layouts=_listed(layouts),
        rounds=rounds,
        agents=agents,
        transport=transport,
        connections=connections,
        directory=directory,
    )
    if plot is not None:
        from mooncake_cli.plot import check  # noqa: PLC0415 - as above

        check(plot)
    with signals.cleaned_up():  # agents and files are gone then
        document = measure(plan, TorchGpus(), output.message).to_json()
    if plot is not None:
        from mooncake_cli.plot import draw_layouts  # noqa: PLC0415 - as above

        draw_layouts(plot, document)
    human = report(document, output.table(*table(document))) if output.mode == "human" else ""
    output.data(document, human=human, quiet=[f"{row['layout']} {row['seconds']}" for row in document["rows"]])


def _listed(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def table(document: dict[str, Any]) -> tuple[list[Column], list[list[str]]]:
    """A row for each layout."""
    columns = [
        Column("LAYOUT", style="bold"),
        Column("GPUS", right=True),
        Column("TIME", right=True),
        Column("LEAST", right=True),
        Column("MOST", right=True),
        Column("GB/s", right=True),
        Column("x one", right=True),
        Column("x object", right=True),
        Column("CPU s/GB", right=True),
    ]
    rows = [
        [
            row["layout"],
            str(row["devices"]),
            format_seconds(row["seconds"]),
            format_seconds(row["least_seconds"]),
            format_seconds(row["most_seconds"]),
            f"{row['gbps']:.2f}",
            _times(row["times_one"]),
            _times(row["received_times"]),
            f"{row['cpu_seconds_per_gb']:.2f}",
        ]
        for row in document["rows"]
    ]
    return columns, rows


def report(document: dict[str, Any], shown: str) -> str:
    """The table, and what it is of."""
    peers = "; ".join(", ".join(f"cuda:{number}" for number in group) for group in document["peers"])
    said = f"{format_size(document['bytes'])} over {document['transport']}, {document['rounds']} rounds, verified"
    return (
        f"{shown}{said}; devices: {printable(', '.join(document['devices']))}\n"
        f"GPUs that copy to one another: {peers}; pinned at most {format_size(document['most_pinned_bytes'])}\n"
    )


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
