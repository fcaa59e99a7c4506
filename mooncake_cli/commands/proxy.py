"""``mooncake proxy``: one OpenAI address before many prefill and decode instances."""

from __future__ import annotations

import logging
import math
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.net import addresses, listening, sockets
from mooncake_cli.invocation import Invocation
from p2pstore.errors import UsageError

if TYPE_CHECKING:
    from p2pstore.serving.proxy.options import Options

DEFAULT_PORT = 8000
"""Upstream's."""

EXAMPLES = {
    "proxy": (
        "mooncake proxy --model llama-3 --prefill 10.0.0.1:8100 10.0.0.2:8100 --decode 10.0.0.3:8200",
        "mooncake proxy --model llama-3 -p p1:8100 8998 p2:8100 8998 -d d1:8200    # KV cache from node to node",
        "mooncake proxy --model llama-3 -p p1:8100 -d d1:8200 --scheduling kvcache-centric --admission early",
    )
}

SEVERAL = {"proxy": ("--prefill", "-p", "--decode", "-d", "--kv-events")}

ADMIN_KEY = "ADMIN_API_KEY"
ENGINE_KEY = "OPENAI_API_KEY"


def proxy(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Option("-m", "--model", metavar="MODEL", help="The model that the instances serve, as they call it.")
    ],
    prefill: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--prefill",
            metavar="HOST:PORT",
            help="Prefill instances, one or several; behind each may stand the port of its bootstrap server.",
        ),
    ] = None,
    decode: Annotated[
        list[str] | None,
        typer.Option("-d", "--decode", metavar="HOST:PORT", help="Decode instances, one or several."),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="PLACE", help="Address, interface or network to listen on.")
    ] = addresses.LOOPBACK,
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65535, help=f"Port [default: {DEFAULT_PORT}].")
    ] = DEFAULT_PORT,
    scheduling: Annotated[
        str,
        typer.Option(
            "--scheduling",
            metavar="POLICY",
            help="random, round-robin, least-load, prefix-local or kvcache-centric [default: round-robin].",
        ),
    ] = "round-robin",
    admission: Annotated[
        str,
        typer.Option(
            "--admission", metavar="WHEN", help="Refuse what would be too late: none, late, early or predicted."
        ),
    ] = "none",
    slo_ttft: Annotated[
        float, typer.Option("--slo-ttft", metavar="SECONDS", help="The latest first token [default: 30].")
    ] = 30.0,
    slo_tbt: Annotated[
        float, typer.Option("--slo-tbt", metavar="SECONDS", help="The longest gap between tokens [default: 0.2].")
    ] = 0.2,
    kv_events: Annotated[
        list[str] | None,
        typer.Option(
            "--kv-events",
            metavar="INSTANCE=ENDPOINT[,REPLAY]",
            help="Where a prefill instance publishes which blocks it holds, as vLLM's --kv-events-config has it.",
        ),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option("--pool", metavar="HOST:PORT", help="The metrics port of the store's master, to know its keys."),
    ] = None,
    p2p: Annotated[
        bool,
        typer.Option(
            "--p2p",
            help="KV cache goes from instance to instance, not through a store; a bootstrap port implies it.",
        ),
    ] = False,
    max_requests: Annotated[
        int | None,
        typer.Option("--max-requests", metavar="COUNT", min=1, help="Serve so many at a time [default: 4096]."),
    ] = None,
    max_waiting: Annotated[
        int | None,
        typer.Option("--max-waiting", metavar="COUNT", min=0, help="Let so many more wait for a turn [default: 1024]."),
    ] = None,
    connect_timeout: Annotated[
        float | None,
        typer.Option("--connect-timeout", metavar="SECONDS", help="For a connection to an instance [default: 5]."),
    ] = None,
    idle_timeout: Annotated[
        float | None,
        typer.Option(
            "--idle-timeout",
            metavar="SECONDS",
            help="Give up an instance from which nothing comes for so long [default: 300].",
        ),
    ] = None,
    drain_timeout: Annotated[
        float | None,
        typer.Option(
            "--drain-timeout", metavar="SECONDS", help="Let an instance that is removed end its work [default: 300]."
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond loopback; the proxy itself asks for no key.")
    ] = False,
) -> None:
    """Serve OpenAI's API from prefill and decode instances of vLLM.

    Each request is computed on a prefill instance and decoded on a decode instance. Prints the URL, then serves until
    SIGTERM, which lets the requests under way end. Instances are probed: what is dead gets nothing until it is back,
    and requests that had no token yet go elsewhere. POST /instances/add and /instances/remove take the key in
    ADMIN_API_KEY; the key in OPENAI_API_KEY is for the proxy's own questions to instances. A client's Authorization is
    passed on.
    """
    invocation: Invocation = ctx.obj
    given = {
        "pool": pool,
        "running": max_requests,
        "waiting": max_waiting,
        "connect_seconds": _time("--connect-timeout", connect_timeout),
        "idle_seconds": _time("--idle-timeout", idle_timeout),
        "drain_seconds": _time("--drain-timeout", drain_timeout),
    }
    for option, seconds in (("--slo-ttft", slo_ttft), ("--slo-tbt", slo_tbt)):
        _time(option, seconds)
    instances = prefill or [], decode or [], kv_events or []
    options = _options(model, instances, (scheduling, admission), (slo_ttft, slo_tbt), p2p=p2p, given=given)
    if not (options.prefill and options.decode) and options.admin_key is None:
        said = f"name instances with --prefill and --decode, or set {ADMIN_KEY} so that they can be added"
        raise UsageError(detail=said)
    address = listening.address_of(_host(host))
    if not insecure and sockets.is_exposed(address):
        from p2pstore.serving.errors import ProxyUnguarded  # noqa: PLC0415 - as below

        raise ProxyUnguarded(address=addresses.join(address, port))
    from engine.files.open_limit import allow_many_files  # noqa: PLC0415 - as below
    from p2pstore.kv.master import loops  # noqa: PLC0415 - as below
    from p2pstore.serving.proxy.run import serve  # noqa: PLC0415 - it brings aiohttp along

    level = logging.DEBUG if invocation.verbose else logging.INFO
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=level)
    allow_many_files()
    loops.run(serve(options, address, port, lambda url: invocation.output.record({"url": url}, url)))


def _options(
    model: str,
    instances: tuple[list[str], list[str], list[str]],
    how: tuple[str, str],
    objectives: tuple[float, float],
    *,
    p2p: bool,
    given: dict[str, Any],
) -> Options:
    """What the flags and the environment say, ``instances`` for prefill, for decode, and their events.

    Raises ``UsageError``.
    """
    from p2pstore.serving.admission import Admission, Objectives  # noqa: PLC0415 - other commands do without
    from p2pstore.serving.placement import Placement  # noqa: PLC0415 - as above
    from p2pstore.serving.policy import PolicySettings  # noqa: PLC0415 - as above
    from p2pstore.serving.proxy.fleet import BadInstance, parse_instances, with_events  # noqa: PLC0415 - as above
    from p2pstore.serving.proxy.options import BLOCK_TOKENS, Options  # noqa: PLC0415 - as above

    prefill, decode, events = instances
    placement = _one("--scheduling", how[0].replace("_", "-"), Placement)
    admission = _one("--admission", how[1], Admission)
    try:
        places = {"prefill": with_events(parse_instances(prefill), events), "decode": parse_instances(decode)}
        if any(place.bootstrap is not None for place in places["decode"]):
            raise UsageError(detail="a bootstrap server is a prefill instance's, not a decode instance's")
        policy = PolicySettings(placement, admission, Objectives(*objectives), block_tokens=BLOCK_TOKENS)
        options = Options(
            model,
            prefill=tuple(places["prefill"]),
            decode=tuple(places["decode"]),
            policy=policy,
            p2p=p2p or any(place.bootstrap is not None for place in places["prefill"]),
            admin_key=_key(ADMIN_KEY),
            engine_key=_key(ENGINE_KEY),
            **{name: value for name, value in given.items() if value is not None},
        )
    except (BadInstance, ValueError) as error:
        raise UsageError(detail=str(error)) from None
    return options


def _key(variable: str) -> str | None:
    """A key from the environment, without the end of the line that one read from a file has. Raises ``UsageError``."""
    key = os.environ.get(variable, "").strip()
    if not key.isprintable():
        raise UsageError(
            detail=f"{variable} has a line break or another control character in it: no header can carry it"
        )
    return key or None


def _time(option: str, seconds: float | None) -> float | None:
    """One that is over 0, and ends. Raises ``UsageError``."""
    if seconds is not None and not 0 < seconds < math.inf:
        raise UsageError(detail=f"{option}: {seconds:g} is no number of seconds above 0")
    return seconds


def _host(text: str) -> str:
    host, _ = addresses.given_place(f"[{text}]" if ":" in text and not text.startswith("[") else text)
    return host


def _one(option: str, name: str, names: Any) -> Any:
    try:
        return names(name)
    except ValueError:
        raise UsageError(detail=f"{option}: {name!r} is none of {', '.join(one.value for one in names)}") from None
