"""``mooncake bench serve``: a trace of requests on a simulated serving cluster, one policy beside the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column
from mooncake_cli.text import printable
from p2pstore.errors import UsageError

if TYPE_CHECKING:
    from p2pstore.serving.simulation.trace import Request

EXAMPLES = {
    "serve": (
        "mooncake bench serve --generate conversation",
        "mooncake bench serve --trace conversation_trace.jsonl --speed 1,2,4 --admission none,early --plot serve.png",
        "mooncake bench serve --generate conversation --prefill 12 --decode 1 --speed 2.5 --admission late,early",
        "mooncake bench serve --trace conversation_trace.jsonl --requests 200 --live http://127.0.0.1:8000 --scale 16",
    )
}

Value = TypeVar("Value")

SIMULATED = ("prefill", "decode", "policy", "admission", "model", "gpu", "gpus", "plot")
"""Options that say what is simulated: real engines are what they are."""

COLUMNS = (
    Column("Speed", right=True),
    Column("Policy", style="bold"),
    Column("Admission"),
    Column("TTFT s", right=True),
    Column("p90", right=True),
    Column("TBT ms", right=True),
    Column("p99", right=True),
    Column("Good/s", right=True),
    Column("Refused", right=True),
    Column("Hits", right=True),
    Column("Prefill s", right=True),
    Column("Wasted", right=True),
    Column("Missed", right=True),
)


def serve(
    ctx: typer.Context,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FILE",
            help="Requests, a line of JSON each: timestamp (ms), input_length, output_length, hash_ids.",
        ),
    ] = None,
    generate: Annotated[
        str | None,
        typer.Option(
            "--generate",
            metavar="NAME",
            help="Make a trace with the published statistics of one: conversation, toolagent or synthetic.",
        ),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(
            "--requests",
            metavar="NUMBER",
            help="Requests to generate [default: as many as were published], or to send with --live [default: all].",
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Write the generated trace to FILE as well.")
    ] = None,
    speed: Annotated[
        str, typer.Option("--speed", metavar="LIST", help="How many times as fast as recorded, separated by commas.")
    ] = "1",
    prefill: Annotated[int, typer.Option("--prefill", metavar="NUMBER", help="Prefill instances.")] = 8,
    decode: Annotated[int, typer.Option("--decode", metavar="NUMBER", help="Decode instances.")] = 8,
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            metavar="LIST",
            help="How requests are placed: random, round-robin, least-load, prefix-local, kvcache-centric.",
        ),
    ] = "random,round-robin,least-load,prefix-local,kvcache-centric",
    admission: Annotated[
        str,
        typer.Option("--admission", metavar="LIST", help="When requests are refused: none, late, early, predicted."),
    ] = "none",
    ttft: Annotated[
        float, typer.Option("--ttft", metavar="SECONDS", help="Longest time to the first token that is good.")
    ] = 30.0,
    tbt: Annotated[
        float, typer.Option("--tbt", metavar="SECONDS", help="Longest time between tokens that is good.")
    ] = 0.2,
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="llama-2-70b or llama-3-8b.")] = "llama-2-70b",
    gpu: Annotated[str, typer.Option("--gpu", metavar="NAME", help="a800, h800 or h20.")] = "a800",
    gpus: Annotated[int, typer.Option("--gpus", metavar="NUMBER", help="GPUs of an instance.")] = 8,
    random_seed: Annotated[
        int, typer.Option("--random-seed", metavar="NUMBER", help="Another number, another trace; the same, the same.")
    ] = 0,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the figures into FILE (.png, .svg).")
    ] = None,
    live: Annotated[
        str | None,
        typer.Option(
            "--live",
            metavar="URL",
            help="Send the requests to a real server with the OpenAI interface, and simulate nothing.",
        ),
    ] = None,
    live_model: Annotated[
        str,
        typer.Option("--live-model", metavar="NAME", help="The model to ask for [default: the first that it has]."),
    ] = "",
    scale: Annotated[
        float,
        typer.Option("--scale", metavar="NUMBER", help="With --live: how many times shorter prompts and outputs are."),
    ] = 1.0,
) -> None:
    """Simulate a serving cluster under a trace of requests.

    Prefill and decode run on different instances. One row for each policy, admission and speed: time to the first token
    (TTFT), time between tokens (TBT: the mean of the longest tenth of a request's gaps), requests a second within both
    objectives, requests refused, the part of all blocks that was reused, and seconds of prefill: all, those whose
    request was refused afterwards (wasted), and those whose request missed an objective.

    With --live a real server gets the requests, at their times, as streamed completions. Prompts are words that are
    drawn from the blocks of the trace, so that equal blocks are equal text. Servers that want a key get that of
    OPENAI_API_KEY.
    """
    from p2pstore.serving.admission import Admission  # noqa: PLC0415 - --help must not wait for it
    from p2pstore.serving.placement import Placement  # noqa: PLC0415 - as above
    from p2pstore.serving.simulation.simulator import simulate  # noqa: PLC0415 - as above

    invocation: Invocation = ctx.obj
    output = invocation.output
    speeds = _each("--speed", speed, float, "a number")
    _see_that_they_fit(ctx, live)
    if live is not None:
        from mooncake_cli.commands import bench_serve_live  # noqa: PLC0415 - as above

        if requests is not None and requests < 1:
            raise UsageError(detail="--requests must be at least 1")
        sent = _requests(trace, generate, None if trace is not None else requests, save, random_seed)[:requests]
        bench_serve_live.run(invocation, live, live_model, sent, speeds, scale, (ttft, tbt))
        return
    if plot is not None:
        from mooncake_cli.plot import check  # noqa: PLC0415 - as above

        check(plot)
    placements = _choices("--policy", policy, Placement)
    admissions = _choices("--admission", admission, Admission)
    scenarios = [
        _scenario(placement, admitted, at, (prefill, decode), (ttft, tbt), (model, gpu, gpus), random_seed)
        for at in speeds
        for placement in placements
        for admitted in admissions
    ]
    played = _requests(trace, generate, requests, save, random_seed)
    began = time.monotonic()
    rows = []
    for scenario in scenarios:
        started = time.monotonic()
        rows.append({**simulate(scenario, played).to_json(), "wall_seconds": round(time.monotonic() - started, 3)})
        output.detail(_line(rows[-1]))
    document = {
        **_trace_document(played),
        "objectives": {"ttft": ttft, "tbt": tbt},
        "costs": _costs_document(scenarios[0].settings.costs, model, gpu),
        "rows": rows,
        "wall_seconds": round(time.monotonic() - began, 3),
    }
    if plot is not None:
        from mooncake_cli.plot_serving import draw_serving  # noqa: PLC0415 - as above

        draw_serving(plot, rows)
    human = output.table(COLUMNS, [_cells(row) for row in rows]) if output.mode == "human" else ""
    output.data(document, human=human, quiet=map(_line, rows))


def _see_that_they_fit(ctx: typer.Context, live: str | None) -> None:
    """Raises ``UsageError`` for an option that does nothing, beside ``--live`` or without it."""
    names = SIMULATED if live is not None else ("live_model", "scale")
    sources = {name: ctx.get_parameter_source(name) for name in names}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given:
        option = f"--{given[0].replace('_', '-')}"
        detail = f"{option} says what is simulated, and --live simulates nothing"
        raise UsageError(detail=detail if live is not None else f"{option} is for --live")


def _requests(
    trace: Path | None, generate: str | None, count: int | None, save: Path | None, seed: int
) -> Sequence[Request]:
    from p2pstore.serving.simulation import generator  # noqa: PLC0415 - as above
    from p2pstore.serving.simulation.trace import read, write  # noqa: PLC0415 - as above

    if (trace is None) == (generate is None):
        raise UsageError(detail="give either --trace FILE or --generate NAME")
    if generate is None:
        if count is not None or save is not None:
            raise UsageError(detail="--requests and --save are for --generate")
        assert trace is not None  # noqa: S101 - one of the two is there
        return read(trace)
    if count is not None and count < 1:
        raise UsageError(detail="--requests must be at least 1")
    made = generator.generate(_named("--generate", generate, generator.WORKLOADS), seed, count)
    if save is not None:
        write(save, made)
    return made


def _scenario(
    placement: Any,
    admission: Any,
    speed: float,
    instances: tuple[int, int],
    objectives: tuple[float, float],
    hardware: tuple[str, str, int],
    seed: int,
) -> Any:
    from p2pstore.serving.admission import Objectives  # noqa: PLC0415 - as above
    from p2pstore.serving.costs import GPUS, MODELS, Costs  # noqa: PLC0415 - as above
    from p2pstore.serving.policy import PolicySettings  # noqa: PLC0415 - as above
    from p2pstore.serving.simulation.outcome import Scenario  # noqa: PLC0415 - as above

    if math.inf in objectives:
        raise UsageError(
            detail="an objective must be a finite number of seconds; to refuse nothing, give --admission none"
        )
    model, gpu, gpus = hardware
    named = (_named("--model", model, MODELS), _named("--gpu", gpu, GPUS))
    try:
        settings = PolicySettings(placement, admission, Objectives(*objectives), Costs(*named, gpus), seed=seed)
        return Scenario(settings, *instances, speed)
    except ValueError as error:
        raise UsageError(detail=str(error)) from None


def _named(option: str, name: str, table: dict[str, Value]) -> Value:
    if name not in table:
        raise UsageError(detail=f"{option}: {name!r} is none of {', '.join(table)}")
    return table[name]


def _choices(option: str, text: str, names: type[Enum]) -> list[Any]:
    return _each(option, text, names, f"one of {', '.join(one.value for one in names)}")


def _each(option: str, text: str, parse: Callable[[str], Value], what: str) -> list[Value]:
    found = []
    for word in text.split(","):
        try:
            found.append(parse(word.strip()))
        except ValueError:
            raise UsageError(detail=f"{option}: {word.strip()!r} is not {what}") from None
    return found


def _trace_document(requests: Sequence[Request]) -> dict[str, Any]:
    from p2pstore.serving.simulation.trace import best_reuse  # noqa: PLC0415 - as above

    count = len(requests)
    return {
        "requests": count,
        "mean_input": round(sum(request.length for request in requests) / count, 1),
        "mean_output": round(sum(request.output for request in requests) / count, 1),
        "best_reuse": round(best_reuse(requests), 4),
    }


def _costs_document(costs: Any, model: str, gpu: str) -> dict[str, Any]:
    return {
        "model": {"name": model, "source": costs.model.source},
        "gpu": {"name": gpu, "source": costs.gpu.source},
        "gpus": costs.gpus,
        "arithmetic_used": costs.arithmetic_used,
        "memory_used": costs.memory_used,
        "prefill": costs.prefill._asdict(),
        "decode": costs.decode._asdict(),
        "network": costs.network,
        "cache_tokens": costs.cache,
    }


def _cells(row: dict[str, Any]) -> Sequence[str]:
    return (
        f"{row['speed']:g}",
        row["policy"],
        row["admission"],
        f"{row['ttft']['mean']:.2f}",
        f"{row['ttft']['p90']:.2f}",
        f"{row['tbt']['mean'] * 1e3:.1f}",
        f"{row['tbt']['p99'] * 1e3:.1f}",
        f"{row['goodput']:.3f}",
        f"{row['rejected']:,}",
        f"{row['hit_rate']:.1%}",
        f"{row['prefill_seconds']:,.0f}",
        f"{row['wasted_seconds']:,.0f}",
        f"{row['missed_seconds']:,.0f}",
    )


def _line(row: dict[str, Any]) -> str:
    return printable(f"{row['policy']} {row['admission']} {row['speed']:g} {row['goodput']:.3f}")
