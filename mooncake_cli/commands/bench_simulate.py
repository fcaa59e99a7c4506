"""``mooncake bench simulate``: one node to very many, in simulated time."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from engine import signals
from mooncake_cli.invocation import Invocation
from mooncake_cli.text import counted
from p2pstore.errors import UsageError
from p2pstore.objects.units import format_seconds, parse_link_rate, parse_size
from p2pstore.settings.keys import parse_chunk_size

EXAMPLES = {
    "simulate": (
        "mooncake bench simulate --receivers 100 --size 20GB",
        "mooncake bench simulate --receivers 1000 --plot swarm.png       # takes some minutes",
        "mooncake bench simulate --receivers 60 --zones 3 --zone-rate 5gbit --deaths 5 --size 20GB",
        "mooncake bench simulate --receivers 16 --size 256MiB --rate 200mbit --calibrate       # as root",
    )
}


def simulate(
    ctx: typer.Context,
    receivers: Annotated[
        int, typer.Option("--receivers", metavar="NUMBER", min=1, help="Nodes that get the object.")
    ] = 100,
    size: Annotated[str, typer.Option("--size", metavar="SIZE", help="Size of the object.")] = "140GB",
    chunk_size: Annotated[
        str | None,
        typer.Option("--chunk-size", metavar="SIZE", help="Size of its chunks [default: as 'register' takes it]."),
    ] = None,
    rate: Annotated[str, typer.Option("--rate", metavar="RATE", help="Each node's link, both ways.")] = "10gbit",
    latency: Annotated[
        float, typer.Option("--latency", metavar="SECONDS", min=0, help="From node to node in a zone, one way.")
    ] = 0.0002,
    zones: Annotated[
        int, typer.Option("--zones", metavar="NUMBER", min=1, help="Zones that the nodes are dealt to.")
    ] = 1,
    zone_rate: Annotated[
        str | None,
        typer.Option(
            "--zone-rate", metavar="RATE", help="Each zone's link to the others, both ways [default: no limit]."
        ),
    ] = None,
    zone_latency: Annotated[
        float, typer.Option("--zone-latency", metavar="SECONDS", min=0, help="What comes on top between zones.")
    ] = 0.002,
    sources: Annotated[
        int | None,
        typer.Option("--sources", metavar="NUMBER", min=1, help="Peers that a node gets from, besides the seed."),
    ] = None,
    slots: Annotated[
        int | None, typer.Option("--slots", metavar="NUMBER", min=1, help="Sends that a node has under way at once.")
    ] = None,
    slow: Annotated[
        str | None, typer.Option("--slow", metavar="NUMBER:RATE", help="Give so many receivers another rate.")
    ] = None,
    arrivals: Annotated[
        float, typer.Option("--arrivals", metavar="SECONDS", min=0, help="Time over which the receivers come.")
    ] = 0.0,
    deaths: Annotated[
        int,
        typer.Option(
            "--deaths", metavar="NUMBER", min=0, help="Receivers that die, at random times before S/B is over."
        ),
    ] = 0,
    kill_seed_after: Annotated[
        float,
        typer.Option(
            "--kill-seed-after", metavar="TIMES", min=0, help="Kill the seed when it sent so many times the object."
        ),
    ] = 0.0,
    processors: Annotated[
        int,
        typer.Option(
            "--processors",
            metavar="NUMBER",
            min=0,
            help="Let all nodes share so many, as 'bench broadcast' does [default: nothing takes them time].",
        ),
    ] = 0,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Measure first what bytes and messages cost this machine's; needs root."),
    ] = False,
    random_seed: Annotated[
        int, typer.Option("--random-seed", metavar="NUMBER", help="Another number, another run; the same, the same.")
    ] = 0,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw progress over time into FILE (.png, .svg).")
    ] = None,
) -> None:
    """Simulate a broadcast to up to thousands of nodes.

    The store's own planner and uploader decide, on a virtual clock; links are shared as TCP would share them. The same
    options give the same run. Told first is the time of the last receiver over S/B, that of a copy to one: for S bytes
    in k chunks at B bytes a second to N receivers it is 1 + c·log2(N)/k, and c at best 1. Where links are not equal,
    the bound is max(S/u_seed, S/d_min, N·S/(u_seed + sum of u)). A thousand nodes and 140 GB take some minutes.

    Processors take no time unless --processors says how many all nodes share: then bytes and messages cost what was
    measured on a machine of two cores, or with --calibrate on this one, and what is said is heard when they get to it.
    """
    from p2pstore.bench.scenario import Scenario  # noqa: PLC0415 - --help must not wait for it
    from p2pstore.bench.simulated_processors import COSTS  # noqa: PLC0415 - as above
    from p2pstore.bench.simulator import simulate as run  # noqa: PLC0415 - as above

    invocation: Invocation = ctx.obj
    output = invocation.output
    slow_count, slow_rate = _slow(slow)
    given = {"sources": sources, "slots": slots}
    try:
        scenario = Scenario(
            receivers=receivers,
            size=_parsed("--size", parse_size, size),
            chunk_size=_parsed("--chunk-size", parse_chunk_size, chunk_size) if chunk_size is not None else 0,
            rate=_parsed("--rate", parse_link_rate, rate),
            latency=latency,
            zones=zones,
            zone_rate=_parsed("--zone-rate", parse_link_rate, zone_rate) if zone_rate is not None else 0.0,
            zone_latency=zone_latency,
            slow=slow_count,
            slow_rate=slow_rate,
            arrivals=arrivals,
            deaths=deaths,
            seed_dies_after=kill_seed_after,
            seed=random_seed,
            processors=processors,
            costs=COSTS,
            **{name: value for name, value in given.items() if value is not None},
        )
    except ValueError as error:
        raise UsageError(detail=str(error)) from None
    if plot is not None:
        from mooncake_cli.plot import check  # noqa: PLC0415 - as above

        check(plot)
    if calibrate:  # it takes a minute: after all that may be wrong
        from p2pstore.bench import calibrate as measuring  # noqa: PLC0415 - as above

        with signals.cleaned_up():  # agents and namespaces are gone then
            costs = measuring.calibrate(output.message)
        scenario = replace(scenario, processors=processors or measuring.processors_here(), costs=costs)
    began = time.monotonic()
    document = run(scenario).to_json()
    document["wall_seconds"] = round(time.monotonic() - began, 3)
    if plot is not None:
        from mooncake_cli.plot_swarm import draw_simulation  # noqa: PLC0415 - as above

        draw_simulation(plot, document)
    output.data(document, human=output.fields(_report(document)), quiet=[f"{document['over_copy']:.4f}"])


def _report(document: dict[str, Any]) -> list[tuple[str, str]]:
    connections = document["connections"]
    finished = f"{document['finished']:,} of {counted(document['receivers'], 'receiver')}"
    if document["died"]:
        finished += f"; {document['died']:,} died"
    last = f"{document['over_copy']:.3f} times S/B" if document["finished"] else "none: nobody has everything"
    if document["c"] is not None:
        last += f"; c = {document['c']:.1f}, with {counted(document['chunks'], 'chunk')}"
    costs = document["costs"]
    busy = []
    if costs is not None:
        said = f"{1e9 * costs['byte_seconds']:.2f} s a GB, {1e3 * costs['message_seconds']:.2f} ms a message"
        said += f", {1e3 * costs['wake_seconds']:.2f} ms a wake-up"
        busy = [("processors", f"{100 * document['busy']:.0f}% busy; {said}")]
    into, out = document["crossed"]
    crossed = [("between zones", f"at most {into:.3f} times the object into one, {out:.3f} out of one")] if into else []
    return [
        ("last receiver", last),
        ("finished", finished),
        ("completion", ", ".join(f"{name} {document[name]:.2f} s" for name in ("p50", "p99", "last"))),
        ("bound", f"{document['bound']:.2f} s; {document['percent_of_bound']:.1f}% of it was reached"),
        ("seed sent", f"{document['seed_ratio']:.3f} times the object"),
        *crossed,
        ("connections", f"{connections['mean']:.1f} a node, {connections['most']} at most"),
        *busy,
        ("simulated in", f"{format_seconds(document['wall_seconds'])}, {document['events']:,} events"),
    ]


def _slow(text: str | None) -> tuple[int, float]:
    if text is None:
        return 0, 0.0
    number, colon, rate = text.partition(":")
    if not colon or not number.isdecimal():
        raise UsageError(detail=f"--slow: {text!r} is not like 10:1gbit")
    return int(number), _parsed("--slow", parse_link_rate, rate)


def _parsed(option: str, parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(detail=f"{option}: {error}") from None
