"""``mooncake get``: bring an object to this machine."""

from __future__ import annotations

import os
import shlex
from typing import Annotated, Any

import typer

from engine.net.addresses import is_ip
from mooncake_cli.calls import follow
from mooncake_cli.invocation import Invocation
from mooncake_cli.text import counted, printable
from p2pstore.errors import UsageError
from p2pstore.objects.chosen import parse_range
from p2pstore.objects.names import check_node_name, check_object_name, path_fault
from p2pstore.objects.units import format_seconds, format_size
from p2pstore.settings.keys import parse_address

EXAMPLES = {
    "get": (
        "mooncake get models/llama-3 /data/llama-3",
        "mooncake get models/llama-3 /data/                      # to /data/llama-3",
        "mooncake get models/llama-3 /data/ --dry-run",
        "mooncake get data.tar . --peer 10.0.0.5:7300",
        "mooncake get models/llama-3/config.json .              # one file, or directory, of the object",
        "mooncake get models/llama-3 /data/first --include '*.json' --include 'model-00001-of-*'",
        "mooncake get models/llama-3/model-00001-of-00008.safetensors /tmp/head --range 0-4095",
        "mooncake get models/llama-3 /data/first --tensors 'model.layers.0.*' --tensors 'model.layers.1.*'",
    )
}


def get(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the object; or NAME/PATH, of a file or directory in it.")
    ],
    dest: Annotated[
        str, typer.Argument(metavar="DEST", help="Where it goes; inside DEST if that ends in '/', or is '.'.")
    ],
    transport: Annotated[
        str | None, typer.Option("--transport", metavar="WAY", help="auto, rdma, tcp or local [default: auto].")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", metavar="PEER", help="Ask this node (HOST:PORT, or a name) too, or alone without etcd."),
    ] = None,
    tensors: Annotated[
        list[str] | None,
        typer.Option("--tensors", metavar="GLOB", help="Only tensors of safetensors files whose names fit this."),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include", metavar="PATTERN", help="Only files that fit this, as in a .gitignore. May be repeated."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="Not what fits this. May be repeated; it wins."),
    ] = None,
    byte_range: Annotated[
        str | None,
        typer.Option("--range", metavar="RANGE", help="Only these bytes of a file: FIRST-LAST, FIRST- or -COUNT."),
    ] = None,
    no_seed: Annotated[bool, typer.Option("--no-seed", help="Do not serve the object afterwards.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be pulled, and write nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file at DEST, or a directory that is an earlier version.")
    ] = False,
    wipe: Annotated[
        bool, typer.Option("--wipe", help="Delete whatever is in the directory DEST, and replace it.")
    ] = False,
) -> None:
    """Bring an object to this machine, verified.

    Every chunk is checked before it counts. What is interrupted resumes with the same command. This node serves the
    object meanwhile and afterwards. Starts an agent when none runs.

    NAME may go on with the path of a file or a directory in the object, which then is what DEST is. With --include and
    --exclude DEST is a directory with those files of it, and with --range a file with those bytes. Only chunks that
    have any of it are brought. With --tensors, DEST is a safetensors file, or a directory of them, with just those
    tensors, under the names that the files have in the object. Such a part is no object, and not served.
    """
    invocation: Invocation = ctx.obj
    settings = invocation.settings(transport=transport)
    _check_name(name)
    if byte_range is not None:
        _check_range(byte_range)
    path = destination(name.rstrip("/"), dest)
    peers = [_peer(text) for text in peer or []]
    client = invocation.client_of_started(settings)
    events = client.get(
        name,
        path,
        transport=settings.transport,
        peers=peers,
        seed=not no_seed,
        dry_run=dry_run,
        force=force,
        wipe=wipe,
        tensors=tensors or [],
        include=include or [],
        exclude=exclude or [],
        byte_range=byte_range or "",
    )
    try:
        result = follow(invocation.output, events, "pulling")
    except KeyboardInterrupt:
        again = shlex.join(["mooncake", *invocation.arguments])
        text = f"interrupted; run the same command again to resume: {printable(again)}"
        invocation.output.plain_error("Interrupted", text, 130)
        raise typer.Exit(130) from None
    for node, size in sorted(result["peers"].items(), key=lambda item: -item[1]):
        invocation.output.detail(f"{format_size(size):>10} from {printable(node)}")
    invocation.output.done(result, human=_dry(result) if dry_run else _report(result), quiet=[result["dest"]])


def destination(name: str, dest: str) -> str:
    """The absolute path that DEST means: inside it, under the last part of ``name``, if it ends in "/" or is ".".

    Raises ``UsageError`` for an empty one.
    """
    if not dest:
        raise UsageError(detail="DEST is empty; '.' is the current directory")
    if os.path.basename(dest) in {"", ".", ".."}:
        dest = os.path.join(dest, name.rpartition("/")[2])
    return os.path.abspath(dest)


def _check_name(text: str) -> None:
    """Raise ``BadName`` or ``UsageError`` for what is no name, and no name with a path in the object."""
    name, _, path = text.partition("/")
    check_object_name(name)
    fault = path_fault(path.rstrip("/")) if path.rstrip("/") else ""
    if fault:
        raise UsageError(detail=f"the path in {printable(text)} {fault}")


def _check_range(text: str) -> None:
    try:
        parse_range(text)
    except ValueError as error:
        raise UsageError(detail=f"--range: {error}") from None


def _peer(text: str) -> str:
    """What the agent is asked for: an address with its port, or a node's name."""
    try:
        host, port = parse_address(text)
        if not port and not is_ip(host):
            return check_node_name(text)
    except ValueError as error:
        raise UsageError(detail=f"--peer: {error}") from None
    if not port:
        raise UsageError(detail=f"--peer: {text!r} has no port; write HOST:PORT, or a node's name")
    return text


def _report(result: dict[str, Any]) -> str:
    what = printable(result["name"])
    if result.get("tensors") is not None:
        what = f"{counted(result['tensors'], 'tensor')} of {what}"
    elif result.get("files") is not None:
        what = f"{counted(result['files'], 'file')} of {what}"
    if not result["bytes_pulled"]:
        number = result.get("files") if result.get("tensors") is None else result["tensors"]
        several = number not in {None, 1}
        head = f"{what} {'are' if several else 'is'} complete at {printable(result['dest'])}: nothing had to be pulled"
    else:
        seconds = result["seconds"]
        rate = f", {format_size(result['bytes_pulled'] / seconds)}/s" if seconds else ""
        reused = f", {format_size(result['bytes_reused'])} reused" if result["bytes_reused"] else ""
        head = (
            f"got {what}: {format_size(result['bytes_pulled'])} by {result['transport']} from "
            f"{counted(len(result['peers']), 'peer')} in {format_seconds(seconds)}{rate}{reused}\n"
            f"verified at {printable(result['dest'])}"
        )
    return head + ("; this node serves it now" if result.get("seeding") else "")


def _dry(result: dict[str, Any]) -> str:
    reused = result["bytes_reused"]
    of_tensors = result.get("tensors") is not None
    if of_tensors or result.get("files") is not None:
        number = counted(result["tensors"], "tensor") if of_tensors else counted(result["files"], "file")
        return (
            f"would pull {format_size(result['bytes_pulled'])} for {number} from "
            f"{counted(len(result['peers']), 'peer')}, and write {format_size(result['size'])} "
            f"to {printable(result['dest'])}"
        )
    return (
        f"would pull {format_size(result['size'] - reused)} of {format_size(result['size'])} "
        f"({format_size(reused)} is here already) from {counted(len(result['peers']), 'peer')} "
        f"to {printable(result['dest'])}"
    )
