"""``mooncake store master``: the master of a pooled store, in the foreground."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.net import addresses
from mooncake_cli.invocation import Invocation
from mooncake_cli.text import counted, printable
from p2pstore.errors import UsageError
from p2pstore.settings.master_keys import ALLOCATIONS, MASTER_PORT, METRICS_PORT

if TYPE_CHECKING:
    from mooncake_cli.output import Output
    from p2pstore.kv.master.run import Running

EXAMPLES = {
    "master": (
        "mooncake store master",
        "mooncake store master --state /var/lib/mooncake/store    # a restart knows its keys again",
        "mooncake store master --listen 10.0.0.1:50051 --metrics 10.0.0.1:9003 --allow 10.0.0.0/24",
        "mooncake store master --rpc_port 50052 --metrics_port 9004 --client_ttl 20    # as mooncake_master",
    )
}

LISTENS = f"Serve clients there [default: 127.0.0.1:{MASTER_PORT}]."
METRICS = f"Serve metrics and 'mooncake store' there [default: 127.0.0.1:{METRICS_PORT}]."
AS_UPSTREAM = "As mooncake_master has it; a number alone is in milliseconds."

Time = str | None


def master(
    ctx: typer.Context,
    listen: Annotated[str | None, typer.Option("--listen", metavar="PLACE[:PORT]", help=LISTENS)] = None,
    metrics: Annotated[str | None, typer.Option("--metrics", metavar="PLACE[:PORT]", help=METRICS)] = None,
    allow: Annotated[
        str | None,
        typer.Option(
            "--allow", metavar="NETWORK[,...]", help="Serve these addresses and networks, and this host, alone."
        ),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Serve whoever reaches an open address.")] = False,
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="DIR", help="Keep the index in DIR [default: a restart forgets all keys]."),
    ] = None,
    lease: Annotated[
        Time, typer.Option("--lease", metavar="TIME", help="Keep a value that was looked up [default: 10s].")
    ] = None,
    soft_pin: Annotated[
        Time, typer.Option("--soft-pin", metavar="TIME", help="Hold a soft pin [default: 30m].")
    ] = None,
    max_soft_pin: Annotated[
        Time, typer.Option("--max-soft-pin", metavar="TIME", help="Hold none for longer [default: 24h].")
    ] = None,
    watermark: Annotated[
        str | None,
        typer.Option(
            "--watermark",
            "--eviction_high_watermark_ratio",
            metavar="SHARE",
            help="Evict where more of the memory is in use [default: 0.9].",
        ),
    ] = None,
    eviction_ratio: Annotated[
        str | None,
        typer.Option(
            "--eviction-ratio",
            "--eviction_ratio",
            metavar="SHARE",
            help="Give so much of it back then [default: 0.05].",
        ),
    ] = None,
    client_ttl: Annotated[
        Time,
        typer.Option(
            "--client-ttl", "--client_ttl", metavar="TIME", help="Take a silent client for dead [default: 10s]."
        ),
    ] = None,
    put_discard: Annotated[
        Time,
        typer.Option(
            "--put-discard",
            "--put_start_discard_timeout_sec",
            metavar="TIME",
            help="Give up a put that does not end [default: 30s].",
        ),
    ] = None,
    put_release: Annotated[
        Time,
        typer.Option(
            "--put-release",
            "--put_start_release_timeout_sec",
            metavar="TIME",
            help="Use its memory again [default: 10m].",
        ),
    ] = None,
    allocation: Annotated[
        str | None,
        typer.Option(
            "--allocation",
            "--allocation_strategy",
            metavar="WAY",
            help=f"How memory is chosen: {', '.join(ALLOCATIONS)} [default: {ALLOCATIONS[0]}].",
        ),
    ] = None,
    max_keys: Annotated[
        int | None, typer.Option("--max-keys", metavar="COUNT", help="Have no more keys [default: 10000000].")
    ] = None,
    tenants: Annotated[
        bool, typer.Option("--tenants", "--enable_multi_tenants", help="Keep the keys of tenants apart.")
    ] = False,
    tenant_quotas: Annotated[
        str | None,
        typer.Option(
            "--tenant-quotas",
            metavar="NAME=SIZE[,...]",
            help="Let these tenants have no more memory than that; implies --tenants.",
        ),
    ] = None,
    offload: Annotated[
        bool, typer.Option("--offload", "--enable_offload", help="Have clients that offer a disk write values to it.")
    ] = False,
    offload_on_evict: Annotated[
        bool,
        typer.Option("--offload-on-evict", "--offload_on_evict", help="Have that done when values are evicted."),
    ] = False,
    promotion: Annotated[
        bool,
        typer.Option(
            "--promotion", "--promotion_on_hit", help="Bring values that are read from a disk back to memory."
        ),
    ] = False,
    rpc_address: Annotated[
        str | None, typer.Option("--rpc_address", metavar="ADDRESS", help="As mooncake_master has it; see --listen.")
    ] = None,
    rpc_port: Annotated[
        int | None,
        typer.Option("--rpc_port", "--port", metavar="PORT", min=0, max=65535, help="As mooncake_master has it."),
    ] = None,
    metrics_host: Annotated[
        str | None, typer.Option("--metrics_host", metavar="ADDRESS", help="As mooncake_master has it; see --metrics.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics_port", metavar="PORT", min=0, max=65535, help="As mooncake_master has it.")
    ] = None,
    kv_lease: Annotated[Time, typer.Option("--default_kv_lease_ttl", metavar="TIME", help=AS_UPSTREAM)] = None,
    kv_soft_pin: Annotated[Time, typer.Option("--default_kv_soft_pin_ttl", metavar="TIME", help=AS_UPSTREAM)] = None,
    kv_max_soft_pin: Annotated[Time, typer.Option("--max_kv_soft_pin_ttl", metavar="TIME", help=AS_UPSTREAM)] = None,
) -> None:
    """Run the master of a pooled store in the foreground.

    Clients of Mooncake Store of every release from 0.3.9 on may use it at the same time. It says on standard error
    where it listens, and what it meets; SIGTERM ends it cleanly. A time is written like 10s, 500ms, 30m or 24h.
    """
    invocation: Invocation = ctx.obj
    settings = invocation.settings(
        master_listen=_place(listen, rpc_address, rpc_port, MASTER_PORT, "--listen or --rpc_address and --rpc_port"),
        master_metrics=_place(
            metrics, metrics_host, metrics_port, METRICS_PORT, "--metrics or --metrics_host and --metrics_port"
        ),
        master_allow=allow,
        master_insecure=insecure or None,
        master_state=state,
        master_lease=_one(lease, _milliseconds(kv_lease), "--lease or --default_kv_lease_ttl"),
        master_soft_pin=_one(soft_pin, _milliseconds(kv_soft_pin), "--soft-pin or --default_kv_soft_pin_ttl"),
        master_max_soft_pin=_one(
            max_soft_pin, _milliseconds(kv_max_soft_pin), "--max-soft-pin or --max_kv_soft_pin_ttl"
        ),
        master_watermark=watermark,
        master_eviction_ratio=eviction_ratio,
        master_client_ttl=client_ttl,
        master_put_discard=put_discard,
        master_put_release=put_release,
        master_allocation=allocation,
        master_max_keys=max_keys,
        master_tenants=tenants or None,
        master_tenant_quotas=tenant_quotas,
        master_offload=offload or None,
        master_offload_on_evict=offload_on_evict or None,
        master_promotion=promotion or None,
    )
    from engine.files.open_limit import allow_many_files  # noqa: PLC0415 - as below
    from p2pstore.kv.master import loops  # noqa: PLC0415 - as below
    from p2pstore.kv.master.run import serve  # noqa: PLC0415 - it brings aiohttp along

    level = logging.DEBUG if invocation.verbose else logging.INFO
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=level)
    allow_many_files()
    loops.run(serve(settings, lambda running: _tell(invocation.output, running)))


def _tell(output: Output, running: Running) -> None:
    document: dict[str, Any] = {
        "address": running.address,
        "metrics": running.metrics,
        "allow": running.allow,
        "state": None if running.state is None else str(running.state),
        "keys": running.keys,
    }
    if output.mode != "human":
        output.record(document, running.address)
        return
    to = f", to this host and {printable(running.allow)} alone" if running.allow is not None else ""
    output.message(f"the master serves clients at {running.address}, and people at {running.metrics}{to}")
    if running.state is not None:
        output.message(f"it keeps its index in {printable(running.state)}, and knew {counted(running.keys, 'key')}")


def _place(given: str | None, host: str | None, port: int | None, default_port: int, names: str) -> str | None:
    """Where to listen, said in our way or in upstream's."""
    if host is None and port is None:
        return given
    there = addresses.join(addresses.LOOPBACK if host is None else host, default_port if port is None else port)
    return _one(given, there, names)


def _one(ours: str | None, upstreams: str | None, names: str) -> str | None:
    if ours is not None and upstreams is not None:
        raise UsageError(detail=f"say {names}, not both")
    return upstreams if ours is None else ours


def _milliseconds(text: str | None) -> str | None:
    """A time as mooncake_master understands it: a number alone is in milliseconds."""
    return f"{text}ms" if text is not None and text.strip().isdecimal() else text
