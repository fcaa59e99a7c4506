"""``mooncake bench delta``: what a new version of a checkpoint costs, with real agents on this machine."""

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
    from p2pstore.bench.delta import Delta

EXAMPLES = {
    "delta": (
        "mooncake bench delta --receivers 8 --size 1GiB            # 2% changed, in one run of tensors",
        "mooncake bench delta --changed 2 --runs 8                 # in eight",
        "mooncake bench delta --receivers 8 --rate 1gbit           # as root: limited network cards",
    )
}

COLUMNS = (
    Column("RECEIVER", style="bold"),
    Column("FULL GET", right=True),
    Column("TIME", right=True),
    Column("UPDATE", right=True),
    Column("OF ALL", right=True),
    Column("TIME", right=True),
)

AGAIN = "run it again; if that fails, too, 'mooncake doctor' looks for what is wrong with this machine"


def delta(
    ctx: typer.Context,
    receivers: Annotated[int, typer.Option("--receivers", metavar="NUMBER", help="Nodes that get both versions.")] = 2,
    size: Annotated[str, typer.Option("--size", metavar="SIZE", help="Size of the checkpoint.")] = "512MiB",
    changed: Annotated[
        float, typer.Option("--changed", metavar="PERCENT", help="Of its bytes that are others in the second version.")
    ] = 2.0,
    runs: Annotated[
        int, typer.Option("--runs", metavar="NUMBER", help="Places at which they are; each begins with a tensor.")
    ] = 1,
    chunk_size: Annotated[
        str | None, typer.Option("--chunk-size", metavar="SIZE", help="Size of its chunks [default: by its size].")
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate", metavar="RATE", help="Each node's network card, both ways, such as 200mbit; needs root."
        ),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory", metavar="DIR", help="Where the copies lie meanwhile; a disk can be the bottleneck."
        ),
    ] = None,
) -> None:
    """Measure what a new version of a checkpoint costs, beside a full get.

    Makes a checkpoint of safetensors files in the shape of a language model of 32 layers, lets all receivers get it at
    the same moment, changes some of it, and lets all get that with --update. Tells what each pulled, what part of the
    checkpoint that is, and how long both took, and compares every copy with the source. Each run of changed bytes costs
    about a chunk beside them, since what begins and ends in the middle of a chunk is brought with all of it.
    """
    from p2pstore.bench.delta import DeltaPlan  # noqa: PLC0415 - --help must not wait for it
    from p2pstore.bench.delta import delta as run  # noqa: PLC0415 - as above

    invocation: Invocation = ctx.obj
    output = invocation.output
    plan = DeltaPlan(
        receivers=receivers,
        size=_parsed("--size", parse_size, size),
        share=changed / 100,
        runs=runs,
        rate=_parsed("--rate", parse_link_rate, rate) if rate is not None else 0.0,
        chunk_size=_parsed("--chunk-size", parse_chunk_size, chunk_size) if chunk_size is not None else None,
        directory=directory,
    )
    if directory is not None and not directory.is_dir():
        raise UsageError(detail=f"--directory: {directory} is no directory")
    with signals.cleaned_up():  # agents and namespaces are gone then
        result = run(plan, output.message)
    document = result.to_json()
    human = f"{_table(output, document)}\n{summary(document)}\n" if output.mode == "human" else ""
    output.data(document, human=human, quiet=[f"{document['share']:.6f}"])
    _complain(result)


def summary(document: dict[str, Any]) -> str:
    """What it came to, in a few lines."""
    changed = 100 * document["changed"] / document["size"]
    return (
        f"{changed:.2f}% of {format_size(document['size'])} changed, in {counted(document['runs'], 'run')}; "
        f"at most {100 * document['share']:.2f}% moved to a node, in chunks of {format_size(document['chunk_size'])}\n"
        f"the last update took {format_seconds(document['update_seconds'])}, "
        f"the last full get {format_seconds(document['full_seconds'])}"
    )


def _table(output: Output, document: dict[str, Any]) -> str:
    rows = []
    for node in document["nodes"]:
        full, update = node["full"], node["update"]
        good = node["equal"] and not node["error"]
        rows.append(
            (
                node["node"],
                format_size(full["pulled"]),
                f"{full['seconds']:.2f} s",
                format_size(update["pulled"]) if good else "failed",
                f"{100 * update['pulled'] / document['size']:.2f} %",
                f"{update['seconds']:.2f} s",
            )
        )
    return output.table(COLUMNS, rows)


def _complain(result: Delta) -> None:
    """Raise when a receiver has not got the second version."""
    for received in result.receivers:
        if received.error or not received.equal:
            what = received.error or "its copy differs from the source"
            raise PartialResult(detail=f"{received.node}: {printable(what)}", todo=AGAIN)


def _parsed(option: str, parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(detail=f"{option}: {error}") from None
