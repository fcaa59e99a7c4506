"""``mooncake etcd``: what is in the metadata server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Column, Output
from mooncake_cli.text import counted, printable, short_digest
from p2pstore.agent.client import AgentClient
from p2pstore.errors import AgentNotRunning, UsageError
from p2pstore.objects.units import format_size
from p2pstore.settings.settings import Settings

if TYPE_CHECKING:
    from engine.etcd.credentials import EtcdCredentials

Entry = dict[str, Any]

SHOWN_VALUE = 160
"""Characters of an upstream record that are shown without ``--verbose``."""

EXAMPLES = {
    "inspect": (
        "mooncake etcd inspect",
        "mooncake etcd inspect --metadata etcd://10.0.0.1:2379 --prefix mooncake/ram/",
    ),
    "gc": (
        "mooncake etcd gc",
        "mooncake etcd gc --metadata etcd://10.0.0.1:2379 --yes",
    ),
}


def inspect(
    ctx: typer.Context,
    prefix: Annotated[str | None, typer.Option("--prefix", metavar="PREFIX", help="Only keys that begin so.")] = None,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Do not ask the processes of a deployment whether they live.")
    ] = False,
) -> None:
    """Show what is in etcd, decoded.

    Nodes, objects with their versions, tags and replicas, the time that leases have left, and the keys of a Mooncake
    deployment; every field with --verbose. Marks what is stale: records of a process that does not answer, and objects
    that no node holds. Asks the server of --metadata or of the configuration, else that of the running agent.
    """
    from p2pstore.inspect import inspect_url  # noqa: PLC0415 - it brings grpc along

    invocation: Invocation = ctx.obj
    output = invocation.output
    document = inspect_url(*_server(invocation), prefix, probe=not no_probe)
    human = _tree(output, document) if output.mode == "human" else ""
    output.data(document, human=human, quiet=(printable(key) for key in _keys(document)))


def gc(
    ctx: typer.Context,
    prefix: Annotated[str | None, typer.Option("--prefix", metavar="PREFIX", help="Only keys that begin so.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed (the default).")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it.")] = False,
    unreachable: Annotated[
        bool, typer.Option("--unreachable", help="Also what does not answer at all; see above.")
    ] = False,
) -> None:
    """Remove stale records.

    Those of Mooncake's processes whose machine refuses the connection, checkpoints all of whose locations are such,
    and objects of ours that no node holds. Each is removed only if it, and what it was judged by, has not changed
    meanwhile. A process that does not answer at all may be dead with its machine, or live in a network that this
    machine is not on: its records go with --unreachable only. Without --yes nothing is removed.
    """
    from p2pstore.inspect import collect_url  # noqa: PLC0415 - it brings grpc along

    if dry_run and yes:
        raise UsageError(detail="--dry-run and --yes exclude each other")
    invocation: Invocation = ctx.obj
    output = invocation.output
    document = collect_url(*_server(invocation), prefix, act=yes, unreachable=unreachable)
    human = _collected(output, document) if output.mode == "human" else ""
    output.data(document, human=human, quiet=(row["key"] for row in document["removed" if yes else "stale"]))
    output.message(_summary(document))


_COLLECTED = (
    ("stale", "would remove"),
    ("removed", "removed"),
    ("changed", "kept: changed meanwhile"),
    ("leased", "kept: its lease ends"),
    ("unreachable", "kept: out of reach"),
)


def _collected(output: Output, document: dict[str, Any]) -> str:
    rows = [
        (did, printable(row["key"]), row["family"], printable(row["why"]))
        for kind, did in _COLLECTED
        for row in document[kind]
    ]
    columns = (Column("ACTION", style="bold"), Column("KEY"), Column("FAMILY"), Column("WHY"))
    return output.table(columns, rows) if rows else ""


def _summary(document: dict[str, Any]) -> str:
    stale, removed = document["stale"], document["removed"]
    if document["dry_run"]:
        text = f"{counted(len(stale), 'record')} would be removed" if stale else "nothing is stale"
        text += "; remove them with --yes" if stale else ""
    else:
        text = f"removed {counted(len(removed), 'record')}"
    if document["unreachable"]:
        text += f"; {counted(len(document['unreachable']), 'record')} out of reach: --unreachable takes them too"
    if document["truncated"]:
        text += "; there are more keys than are read"
    return text


def _server(invocation: Invocation) -> tuple[str, EtcdCredentials]:
    """The metadata server to ask, and who we are to it."""
    settings = invocation.settings()
    url = settings.metadata or _url_of_agent(invocation, settings)
    from p2pstore.agent.options import credentials  # noqa: PLC0415 - as above

    return url, credentials(settings)


def _url_of_agent(invocation: Invocation, settings: Settings) -> str:
    try:
        return str(AgentClient(invocation.find_home(settings)).status()["metadata"])
    except AgentNotRunning:
        detail = "no metadata server is set and no agent runs; name one with --metadata etcd://HOST:PORT"
        raise UsageError(detail=detail) from None


def _keys(document: dict[str, Any]) -> list[str]:
    entries = [entry for _, kind, _ in _BRANCHES for entry in document[kind]]
    return sorted(item["key"] for entry in entries for item in (entry, *entry.get("replicas", ())))


def _tree(output: Output, document: dict[str, Any]) -> str:
    from rich.tree import Tree  # noqa: PLC0415 - rich costs more than the whole start

    tree = Tree(_label(f"{document['url']}  (etcd {document['version']})"), guide_style="dim")
    for title, kind, render in _BRANCHES:
        entries: list[Entry] = document[kind]
        if not entries:
            continue
        branch = tree.add(_label(f"{title} ({len(entries)})", "bold"))
        for entry in entries:
            leaf = branch.add(_label(_line(entry, render)))
            for replica in entry.get("replicas", ()):
                leaf.add(_label(_line(replica, _replica)))
            if output.verbose:
                _details(leaf, entry)
    if not any(document[kind] for _, kind, _ in _BRANCHES):
        tree.add(_label("nothing of Mooncake's"))
    more = "there are more keys than are read; narrow it down with --prefix\n" if document["truncated"] else ""
    if document["unprobed"]:
        more += (
            f"{document['unprobed']} endpoints are too many to ask whether they live; narrow it down with --prefix\n"
        )
    return output.render(tree) + more


def _line(entry: Entry, render: Callable[[Entry], str]) -> str:
    """One entry: what it is, then what is left of its lease; a value that is not as it should be shows its key."""
    if entry.get("malformed"):
        return f"{entry['key']}  malformed: {entry['malformed']}"
    left = entry.get("lease_left")
    text = render(entry) + ("" if left is None else f"  lease {left} s")
    state = entry.get("state")
    return f"{text}  {state.upper()}: {entry['why']}" if state in {"stale", "unreachable"} else text


def _node(entry: Entry) -> str:
    zone = f"  zone {entry['zone']}" if entry.get("zone") else ""
    return f"{entry['node']}  {entry['control']}{zone}"


def _object(entry: Entry) -> str:
    size = format_size(entry["size"])
    return f"{entry['name']}  {size} in chunks of {format_size(entry['chunk_size'])}  {short_digest(entry['manifest'])}"


def _tag(entry: Entry) -> str:
    return f"{entry['name']}:{entry['tag']}  {short_digest(entry['manifest'])}"


def _replica(entry: Entry) -> str:
    return f"{entry['node']}  {entry['state']}  {entry['role']}"


def _orphan(entry: Entry) -> str:
    return f"{short_digest(entry['manifest'])}  {_replica(entry)}"


def _upstream(entry: Entry) -> str:
    fields = {key: value for key, value in entry.items() if key not in _OUTER}
    return f"{entry['key']}  {entry['family']}  {_short(fields)}"


def _unknown(entry: Entry) -> str:
    return f"{entry['key']}  {entry['size']} bytes  {entry.get('preview', '')}"


_OUTER = {"key", "family", "lease_left", "malformed", "replicas", "state", "why"}

_BRANCHES: tuple[tuple[str, str, Callable[[Entry], str]], ...] = (
    ("nodes", "nodes", _node),
    ("objects", "objects", _object),
    ("earlier versions", "versions", _object),
    ("tags", "tags", _tag),
    ("replicas of no object", "orphans", _orphan),
    ("of Mooncake itself", "upstream", _upstream),
    ("unknown keys", "unknown", _unknown),
)


def _details(leaf: Any, entry: Entry) -> None:
    for key, value in entry.items():
        if key not in {"replicas", "malformed"}:
            shown = json.dumps(value) if isinstance(value, (dict, list)) else value
            leaf.add(_label(f"{key}: {shown}", "dim"))


def _short(fields: dict[str, Any]) -> str:
    text = json.dumps(fields, ensure_ascii=False) if fields else ""
    return text if len(text) <= SHOWN_VALUE else text[: SHOWN_VALUE - 3] + "..."


def _label(text: object, style: str = "") -> Any:
    from rich.text import Text  # noqa: PLC0415 - rich costs more than the whole start

    return Text(printable(text), style=style)
