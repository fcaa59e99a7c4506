"""``mooncake bench broadcast``: one node to many, with real agents on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine import signals
from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column, Output
from mooncake_cli.text import counted, printable
from p2pstore.errors import PartialResult, UsageError
from p2pstore.objects.units import format_seconds, format_size, parse_link_rate, parse_size
from p2pstore.settings.keys import parse_chunk_size

if TYPE_CHECKING:
    from p2pstore.bench.broadcast_outcome import Broadcast

NEARLY_ALL = 0.9
"""The part of the processors' time from which they, and not the network, decide how long a broadcast takes."""

EXAMPLES = {
    "broadcast": (
        "mooncake bench broadcast --receivers 4 --size 1GiB              # on loopback",
        "mooncake bench broadcast --receivers 8 --rate 200mbit           # as root: limited network cards",
        "mooncake bench broadcast --receivers 8 --rate 200mbit --kill-seed-after 1.2 --plot broadcast.png",
    )
}


def broadcast(
    ctx: typer.Context,
    receivers: Annotated[int, typer.Option("--receivers", metavar="NUMBER", help="Nodes that get the object.")] = 4,
    size: Annotated[str, typer.Option("--size", metavar="SIZE", help="Size of the object.")] = "256MiB",
    chunk_size: Annotated[
        str | None, typer.Option("--chunk-size", metavar="SIZE", help="Size of its chunks [default: by its size].")
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate", metavar="RATE", help="Each node's network card, both ways, such as 200mbit; needs root."
        ),
    ] = None,
    slow: Annotated[
        list[str] | None,
        typer.Option(
            "--slow", metavar="NODE:RATE", help="Give receiver NODE (1, 2, ..) another rate; may be repeated."
        ),
    ] = None,
    kill_seed_after: Annotated[
        float,
        typer.Option("--kill-seed-after", metavar="TIMES", help="Kill the seed when it sent so many times the object."),
    ] = 0.0,
    restart_one: Annotated[
        float,
        typer.Option("--restart-one", metavar="SECONDS", help="Kill receiver 1 and start it again, so often."),
    ] = 0.0,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory", metavar="DIR", help="Where the copies lie meanwhile; a disk can be the bottleneck."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw progress and who sent how much to whom (.png, .svg)."),
    ] = None,
) -> None:
    """Measure a broadcast by real agents on this machine.

    Starts an etcd, a seed and the receivers, lets all get the same object at the same moment over TCP, and compares
    every copy with the source. With --rate each node lives in a network namespace of its own, with a limited card; the
    time of the last receiver is then told over S/B, that of a copy to one: for S bytes in k chunks at B bytes a second
    to N receivers it is 1 + c·log2(N)/k, and c at best 1. Where the processors were busy, they made the figure.
    """
    from p2pstore.bench.broadcast import broadcast as run  # noqa: PLC0415 - --help must not wait for it
    from p2pstore.bench.broadcast_outcome import BroadcastPlan  # noqa: PLC0415 - as above

    invocation: Invocation = ctx.obj
    output = invocation.output
    plan = BroadcastPlan(
        receivers=receivers,
        size=_parsed("--size", parse_size, size),
        rate=_parsed("--rate", parse_link_rate, rate) if rate is not None else 0.0,
        chunk_size=_parsed("--chunk-size", parse_chunk_size, chunk_size) if chunk_size is not None else None,
        slow=dict(_slow(text) for text in slow or ()),
        kill_seed_after=_not_negative("--kill-seed-after", kill_seed_after),
        restart=_not_negative("--restart-one", restart_one),
        directory=directory,
    )
    if directory is not None and not directory.is_dir():
        raise UsageError(detail=f"--directory: {directory} is no directory")
    if plot is not None:
        from mooncake_cli.plot import check  # noqa: PLC0415 - as above

        check(plot)
    with signals.cleaned_up():  # agents and namespaces are gone then
        result = run(plan, output.message)
    document = result.to_json()
    if plot is not None:
        from mooncake_cli.plot_swarm import draw_broadcast  # noqa: PLC0415 - as above

        draw_broadcast(plot, document)
    human = f"{_table(output, document)}\n{summary(document)}\n" if output.mode == "human" else ""
    output.data(document, human=human, quiet=[f"{document['last']:.3f}"])
    _complain(result)


def summary(document: dict[str, Any]) -> str:
    """What a broadcast came to, in a few lines."""
    lines = [f"last receiver after {format_seconds(document['last'])}"]
    if not document["ok"]:  # a time, or what the processors took, would be of something else
        whole = [node for node in document["nodes"] if node["equal"] and not node["error"]]
        lines = [f"{len(whole)} of {counted(document['receivers'], 'receiver')} got everything"]
    elif document["bound"] is not None:
        cost = "" if document["c"] is None else f", c = {document['c']:.1f}"
        lines[0] += (
            f", {document['over_copy']:.2f} times S/B{cost}; "
            f"{document['percent_of_bound']:.1f}% of the bound, {format_seconds(document['bound'])}"
        )
    killed = "; then it was killed" if document["seed_killed"] else ""
    lines.append(f"the seed sent {document['seed_ratio']:.2f} times the object{killed}")
    if not document["ok"]:
        return "\n".join(lines)
    spent = f"the agents took {document['processor_seconds_per_gb']:.1f} s of processors for each GB received"
    if document["busy"] is not None:
        spent += f"; all processors were busy {100 * document['busy']:.0f}% of the time"
        if document["busy"] >= NEARLY_ALL:
            spent += "\nSo the processors decided how long it took, not the network."
    return "\n".join([*lines, spent])


def _table(output: Output, document: dict[str, Any]) -> str:
    """A row for each receiver: its time, and how much it got from whom."""
    nodes = document["nodes"]
    sources = ["seed", *(node["node"] for node in nodes)]
    columns = [Column("RECEIVER", style="bold"), Column("TIME", right=True)]
    columns += [Column(f"FROM {name}", right=True) for name in sources]
    rows = []
    for node in nodes:
        amounts = [format_size(node["peers"][name]) if node["peers"].get(name) else "-" for name in sources]
        state = f"{node['seconds']:.2f} s" if node["equal"] and not node["error"] else "failed"
        rows.append([node["node"], state, *amounts])
    return output.table(columns, rows)


AGAIN = "run it again; if that fails, too, 'mooncake doctor' looks for what is wrong with this machine"


def _complain(result: Broadcast) -> None:
    """Raise when a receiver did not get everything."""
    for received in result.receivers:
        if received.error or not received.equal:
            what = received.error or "its copy differs from the source"
            raise PartialResult(detail=f"{received.node}: {printable(what)}", todo=AGAIN)


def _slow(text: str) -> tuple[int, float]:
    number, colon, rate = text.partition(":")
    if not colon or not number.isdecimal():
        raise UsageError(detail=f"--slow: {text!r} is not like 1:20mbit")
    return int(number), _parsed("--slow", parse_link_rate, rate)


def _not_negative(option: str, value: float) -> float:
    if not 0 <= value < 1e6:
        raise UsageError(detail=f"{option}: {value:g} is not between 0 and a million")
    return value


def _parsed(option: str, parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(detail=f"{option}: {error}") from None
