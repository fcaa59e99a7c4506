"""``mooncake etcd``: what is in the metadata server."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mooncake_cli.invocation import Invocation
from mooncake_cli.output import Output
from mooncake_cli.text import printable
from p2pstore.client import AgentClient
from p2pstore.config import Settings
from p2pstore.errors import AgentNotRunning, UsageError

EXAMPLES = {
    "inspect": (
        "mooncake etcd inspect",
        "mooncake etcd inspect --metadata etcd://10.0.0.1:2379 --prefix mooncake/ram/",
    )
}


def inspect(
    ctx: typer.Context,
    prefix: Annotated[str | None, typer.Option("--prefix", metavar="PREFIX", help="Only keys that begin so.")] = None,
) -> None:
    """Show what is in etcd, decoded.

    Nodes, objects and replicas with the time their leases have left, and the keys of a Mooncake deployment. Asks the
    server of --metadata or of the configuration, else that of the running agent.
    """
    invocation: Invocation = ctx.obj
    output = invocation.output
    settings = invocation.settings()
    url = settings.metadata or _url_of_agent(invocation, settings)
    from p2pstore.inspect import inspect_url  # noqa: PLC0415 - it brings grpc along
    from p2pstore.metadata.credentials import EtcdCredentials  # noqa: PLC0415 - as above

    credentials = EtcdCredentials(
        user=settings.etcd_user or "",
        password=settings.etcd_password or "",
        ca=str(settings.etcd_ca or ""),
        cert=str(settings.etcd_cert or ""),
        key=str(settings.etcd_key or ""),
    )
    document: dict[str, Any] = inspect_url(url, credentials, prefix)
    output.data(document, human=_tree(output, document) if output.mode == "human" else "")


def _url_of_agent(invocation: Invocation, settings: Settings) -> str:
    try:
        return str(AgentClient(invocation.find_home(settings)).status()["metadata"])
    except AgentNotRunning:
        detail = "no metadata server is set and no agent runs; name one with --metadata etcd://HOST:PORT"
        raise UsageError(detail=detail) from None


def _tree(output: Output, document: dict[str, Any]) -> str:
    """A tree of the document: a mapping is a branch, a value a leaf."""
    from rich.tree import Tree  # noqa: PLC0415 - rich costs more than the whole start

    tree = Tree(_label(document.get("url", "etcd")), guide_style="dim")
    _grow(tree, {key: value for key, value in document.items() if key != "url"})
    return output.render(tree)


def _grow(branch: Any, value: object) -> None:
    if isinstance(value, dict):
        for key, below in value.items():
            if isinstance(below, (dict, list)):
                _grow(branch.add(_label(key)), below)
            else:
                branch.add(_label(f"{key}: {_shown(below)}"))
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict) and "key" in item:
                rest = {key: below for key, below in item.items() if key != "key"}
                _grow(branch.add(_label(item["key"])), rest)
            elif isinstance(item, (dict, list)):
                _grow(branch.add(_label("-")), item)
            else:
                branch.add(_label(_shown(item)))


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _label(text: object) -> Any:
    from rich.text import Text  # noqa: PLC0415 - rich costs more than the whole start

    return Text(printable(text))
