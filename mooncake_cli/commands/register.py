"""``mooncake register``: publish files and directories, one or thousands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mooncake_cli.calls import follow
from mooncake_cli.invocation import Invocation
from mooncake_cli.text import counted, printable, short_digest
from p2pstore.errors import BadName, PartialResult, PathNotFound, StorageError, UsageError, from_wire
from p2pstore.objects.names import check_object_name
from p2pstore.objects.units import format_seconds, format_size
from p2pstore.settings.settings import Settings

SHOWN_FAILURES = 10
"""Of what could not be registered, so many are shown to people; ``--json`` lists all."""

EXAMPLES = {
    "register": (
        "mooncake register ./llama-3 --name models/llama-3",
        "mooncake register data.tar",
        "mooncake register ./llama-3 --name models/llama-3 --force    # after it changed",
        "mooncake register *.bin --name shards/                       # shards/a.bin, shards/b.bin, ...",
        "mooncake register --each ./datasets --name data/             # every entry of the directory",
    )
}


def register(
    ctx: typer.Context,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files or directories; they stay where they are.")
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Name of the object; of several, what goes before each, up to its '/' [default: PATH's last part].",
        ),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="PATHs are directories, and each of their entries is an object.")
    ] = False,
    chunk_size: Annotated[
        str | None,
        typer.Option("--chunk-size", metavar="SIZE", help="Power of two, 1MiB to 64MiB [default: by the size]."),
    ] = None,
    hash_name: Annotated[
        str | None, typer.Option("--hash", metavar="HASH", help="xxh3_128 or blake3 [default: xxh3_128].")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what has this name with other content.")] = False,
) -> None:
    """Publish a file or directory under a name, or several.

    Hashes PATH and serves it from where it lies, until it changes or 'mooncake unregister'. Starts an agent when none
    runs.
    """
    invocation: Invocation = ctx.obj
    settings = invocation.settings(chunk_size=chunk_size, hash=hash_name)
    if each or len(paths) > 1:
        _register_many(invocation, settings, _named(_entries(paths) if each else paths, name), force=force)
    else:
        _register_one(invocation, settings, paths[0], name, force=force)


def _register_one(invocation: Invocation, settings: Settings, path: str, name: str | None, *, force: bool) -> None:
    absolute = _absolute(path)
    name = _default_name(absolute) if name is None else check_object_name(name)
    client = invocation.client_of_started(settings)
    events = client.register(absolute, name, chunk_size=settings.chunk_size, hash_name=settings.hash, force=force)
    result = follow(invocation.output, events, "hashing")
    chunks = f"{counted(result['chunks'], 'chunk')} of {format_size(result['chunk_size'])}"
    parts = f"{counted(result['files'], 'file')}, {chunks}"
    rate = f", {format_size(result['size'] / result['seconds'])}/s" if result["seconds"] else ""
    human = (
        f"registered {printable(result['name'])}: {format_size(result['size'])}, {parts}, "
        f"in {format_seconds(result['seconds'])}{rate}\n"
        f"manifest {short_digest(result['manifest'])}; elsewhere: mooncake get {printable(result['name'])} DEST"
    )
    invocation.output.done(result, human=human, quiet=[result["name"]])


def _register_many(invocation: Invocation, settings: Settings, items: list[tuple[str, str]], *, force: bool) -> None:
    output = invocation.output
    client = invocation.client_of_started(settings)
    events = client.register_many(items, chunk_size=settings.chunk_size, hash_name=settings.hash, force=force)
    result = follow(output, events, "registering", "objects")
    made, failed = result["objects"], result["failed"]
    amount = f"{format_size(result['size'])}, in {format_seconds(result['seconds'])}"
    human = f"registered {counted(len(made), 'object')}: {amount}"
    if made:
        human += f"\nelsewhere: mooncake get {printable(made[0]['name'])} DEST"
    output.done(result, human=human, quiet=[one["name"] for one in made])
    for one in failed[:SHOWN_FAILURES]:
        output.message(printable(f"{one['path']}: {from_wire(one['error'])}"))
    if failed and not made:
        raise from_wire(failed[0]["error"])
    if failed:
        raise PartialResult(detail=f"{len(failed)} of {counted(len(items), 'path')} could not be registered")


def _named(paths: list[str], prefix: str | None) -> list[tuple[str, str]]:
    """Absolute paths with the names that they are to have. Raises ``UsageError``, ``BadName`` or ``PathNotFound``."""
    prefix = prefix or ""
    if prefix and not prefix.endswith("/"):
        raise UsageError(detail=f"several objects cannot all be named {prefix!r}; '--name {prefix}/' goes before each")
    if prefix:
        check_object_name(prefix[:-1])
    names: dict[str, str] = {}
    for path in paths:
        absolute = _absolute(path)
        name = prefix + Path(absolute).name
        if name in names:
            raise UsageError(detail=f"{names[name]} and {absolute} would both be named {name!r}")
        names[name] = absolute
    return [(absolute, name) for name, absolute in names.items()]


def _entries(directories: list[str]) -> list[str]:
    """All entries of the directories, sorted. Raises ``UsageError``, ``PathNotFound`` or ``StorageError``."""
    paths = []
    for directory in directories:
        try:
            found = sorted(os.listdir(_absolute(directory)))
        except NotADirectoryError:
            raise UsageError(detail=f"{directory} is no directory, whose entries --each would register") from None
        except OSError as error:
            raise StorageError(path=directory, detail=error.strerror or str(error)) from None
        paths += [os.path.join(directory, name) for name in found]
    if not paths:
        raise UsageError(detail=f"there is nothing in {', '.join(directories)}")
    return paths


def _absolute(path: str) -> str:
    absolute = os.path.abspath(path)
    if not os.path.lexists(absolute):
        raise PathNotFound(path=path)
    return absolute


def _default_name(absolute: str) -> str:
    base = Path(absolute).name
    try:
        return check_object_name(base)
    except BadName as error:
        reason = error.fields["detail"]
        detail = f"{base!r} cannot name an object ({reason}); give a name with --name"
        raise UsageError(detail=detail) from None
