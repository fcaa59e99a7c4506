"""``mooncake register``: publish files and directories, one or thousands."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import argument
from mooncake_cli import EXIT_INTERRUPTED
from mooncake_cli.calls import follow
from mooncake_cli.invocation import Invocation
from mooncake_cli.progress import Progress
from mooncake_cli.tags import moved
from mooncake_cli.text import counted, printable, short_digest
from mooncake_cli.wanted import end_partly
from p2pstore.errors import BadName, PathNotFound, StorageError, UsageError, from_wire
from p2pstore.hub.origin import HubOrigin, is_origin
from p2pstore.objects.file_system import words
from p2pstore.objects.names import check_object_name
from p2pstore.objects.reference import check_tag
from p2pstore.objects.selection import Selection
from p2pstore.objects.units import format_seconds, format_size
from p2pstore.origins.address import Place, parse_origin
from p2pstore.settings.settings import Settings

STANDARD_INPUT = "-"

BLOCK_BYTES = 1 << 20

EXAMPLES = {
    "register": (
        "mooncake register ./llama-3 --name models/llama-3",
        "mooncake register data.tar",
        "mooncake register hf://org/llama@v1 --include '*.safetensors' --include '*.json'",
        "mooncake register s3://bucket/llama-3 --exclude '*.bin'",
        "mooncake register https://host.example/llama-3.tar --name archives/llama-3",
        "mooncake register - --name archives/llama-3                  # what comes from a pipe",
        "mooncake register ./llama-3 --name models/llama-3 --force    # after it changed",
        "mooncake register ./step-2000 --name models/llama-3 --force --tag step-2000",
        "mooncake register *.bin --name shards/                       # shards/a.bin, shards/b.bin, ...",
        "mooncake register --each ./datasets --name data/             # every entry of the directory",
        "mooncake register ./llama-3 --exclude '*.bin' --exclude 'original/'",
        "mooncake register ./llama-3 --include '*.safetensors' --include '*.json'",
    )
}


def register(
    ctx: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Files or directories, which stay where they are; '-' is standard input; or a URL, see below.",
        ),
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
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Leave out what fits PATTERN, as in a .gitignore: '*.bin', 'tmp/', '/logs/**'. May be repeated.",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include",
            metavar="PATTERN",
            help="Take only files that fit PATTERN. May be repeated; --exclude wins.",
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Take what is left out by default, too: lost+found, .git, .cache/huggingface, unfinished gets.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what has this name with other content.")] = False,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="Have NAME:TAG lead to it, now and later. May be repeated."),
    ] = None,
) -> None:
    """Publish a file or directory under a name, or several.

    Hashes PATH and serves it from where it lies, until it changes or 'mooncake unregister'. Starts an agent when none
    runs. Links to files are followed, and their content is published under the link's name; a link to a directory, or
    to nothing, is refused, unless it is PATH itself.

    With --force the name stands for this from now on, and this node gives up what it had under it, unless a tag leads
    to that: then it goes on to serve both.

    Standard input is kept in a file of the agent's, where the setting 'keep' says, and hashed as it comes.

    hf://ORG/NAME[@REVISION] is a repository of the Hugging Face hub, which the setting 'hf_upstream' names. It is kept
    there, too, and its commit becomes a tag.

    https://HOST/PATH is a file of a web server, and file:///PATH a file or directory of this machine, such as of a slow
    network file system. Nodes that register the same together read it once in all, and get the rest from each other;
    what came stays when it is interrupted. Its ETag, or what stands for the files' times, becomes a tag. A password for
    a web server is taken from ~/.netrc of the agent's user.

    s3://BUCKET/KEY is an object of an S3 store, or all that is below that prefix, in the same way; it needs s3fs
    ('mooncake-cli[origins]'). The store and the credentials are those that boto finds as the agent's user: ~/.aws, or
    its variables where the agent was started.
    """
    invocation: Invocation = ctx.obj
    selection = Selection(include or (), exclude or (), everything)
    settings = invocation.settings(chunk_size=chunk_size, hash=hash_name)
    how = _How(settings, selection, force, tuple(map(check_tag, tag or [])))
    if STANDARD_INPUT in paths:
        if each or len(paths) > 1 or include or exclude:
            raise UsageError(detail="'-' is standard input, one object by itself; './-' is a file of that name")
        _register_stream(invocation, how, name)
    elif any(map(is_origin, paths)):
        if each or len(paths) > 1:
            raise UsageError(detail="an origin is one object by itself; './hf:' is a path that begins so")
        _register_origin(invocation, how, paths[0], name)
    elif each or len(paths) > 1:
        _register_many(invocation, how, _named(_entries(paths, selection) if each else paths, name))
    else:
        _register_one(invocation, how, paths[0], name)


@dataclass(frozen=True)
class _How:
    settings: Settings
    selection: Selection
    force: bool
    tags: tuple[str, ...]

    @property
    def options(self) -> dict[str, Any]:
        """As the calls to the agent take them."""
        given = {"include": self.selection.include, "exclude": self.selection.exclude, "all": self.selection.everything}
        return {
            "chunk_size": self.settings.chunk_size,
            "hash_name": self.settings.hash,
            "force": self.force,
            "tags": self.tags,
            "selection": {key: value for key, value in given.items() if value},
        }


def _register_one(invocation: Invocation, how: _How, path: str, name: str | None) -> None:
    absolute = _absolute(path)
    name = _default_name(absolute) if name is None else check_object_name(name)
    client = invocation.client_of_started(how.settings)
    events = client.register(absolute, name, **how.options)
    _tell(invocation, follow(invocation.output, events, "hashing"))


def _register_origin(invocation: Invocation, how: _How, text: str, name: str | None) -> None:
    origin = parse_origin(text)
    name = check_object_name(origin.name if name is None else name)
    client = invocation.client_of_started(how.settings)
    given = how.options
    body = {
        "origin": text,
        "name": name,
        "hash": given["hash_name"],
        "tags": list(how.tags),
        **given["selection"],
    }
    body |= {"chunk_size": given["chunk_size"], "force": how.force}
    try:
        result = follow(invocation.output, client.events("/v1/register-origin", body), "bringing")
    except KeyboardInterrupt:
        text = invocation.output.commands(_stays(origin))
        invocation.output.plain_error("Interrupted", text, EXIT_INTERRUPTED)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    word = "commit" if isinstance(origin, HubOrigin) else "revision"
    _tell(invocation, result, f"{word} {printable(result[word])}, kept at {printable(result['path'])}\n")


def _stays(origin: HubOrigin | Place) -> str:
    """What is left of bringing that was interrupted, without the address, in which secrets may be."""
    whole = ["hf/blobs/"] if isinstance(origin, HubOrigin) else []
    where = " and ".join(["origins/", *whole])
    given_up = f"mooncake unregister {' '.join(['origins/', *whole])} --delete --last-copies"
    return (
        f"interrupted; what has come stays on this node, below {where}: "
        f"run the same command again to go on from there, or '{given_up}' to give up all that this node has of origins"
    )


def _register_stream(invocation: Invocation, how: _How, name: str | None) -> None:
    if name is None:
        raise UsageError(detail="standard input has no name; give it one with --name")
    check_object_name(name)
    if sys.stdin is None:  # what Python makes of one that is closed
        raise StorageError(path="standard input", detail="it is not open for reading")
    if sys.stdin.isatty():
        raise UsageError(detail="standard input is a terminal: '-' is for a pipe or a file")
    client = invocation.client_of_started(how.settings)
    with invocation.output.progress("reading", "B") as bar:
        events = client.register_stream(
            _blocks(bar),
            name,
            chunk_size=how.settings.chunk_size,
            hash_name=how.settings.hash,
            force=how.force,
            tags=how.tags,
        )
        first = next(events)  # when all has been read
    result = follow(invocation.output, itertools.chain([first], events), "publishing", "")
    _tell(invocation, result, f"kept at {printable(result['path'])}\n")


def _blocks(bar: Progress) -> Iterator[bytes]:
    """Standard input, in the pieces in which it comes. Raises ``StorageError``."""
    done = 0
    descriptor = sys.stdin.fileno()
    while block := _read(descriptor):
        done += len(block)
        bar.update(done, 0)
        yield block


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, BLOCK_BYTES)
    except OSError as error:  # never the agent's, which a ConnectionError would be taken for
        detail = "it is not open for reading" if error.errno == errno.EBADF else words(error)
        raise StorageError(path="standard input", detail=detail) from None


def _tell(invocation: Invocation, result: dict[str, Any], kept: str = "") -> None:
    chunks = f"{counted(result['chunks'], 'chunk')} of {format_size(result['chunk_size'])}"
    parts = f"{counted(result['files'], 'file')}, {chunks}"
    rate = f", {format_size(result['size'] / result['seconds'])}/s" if result["seconds"] else ""
    human = (
        f"registered {printable(result['name'])}: {format_size(result['size'])}, {parts}, "
        f"in {format_seconds(result['seconds'])}{rate}\n{kept}"
        f"{_moved(result)}"
        f"manifest {short_digest(result['manifest'])}; elsewhere: mooncake get {argument(result['name'])} DEST"
    )
    invocation.output.done(result, human=human, quiet=[result["name"]])


def _moved(result: dict[str, Any]) -> str:
    return "".join(f"{line}\n" for line in moved(result["name"], result["manifest"], result.get("tags", [])))


def _register_many(invocation: Invocation, how: _How, items: list[tuple[str, str]]) -> None:
    output = invocation.output
    client = invocation.client_of_started(how.settings)
    events = client.register_many(items, **how.options)
    result = follow(output, events, "registering", "objects")
    made, failed = result["objects"], result["failed"]
    amount = f"{format_size(result['size'])}, in {format_seconds(result['seconds'])}"
    human = f"registered {counted(len(made), 'object')}: {amount}"
    if made:
        human += f"\nelsewhere: mooncake get {argument(made[0]['name'])} DEST"
    errors = [(one["path"], from_wire(one["error"])) for one in failed]
    result["failed"] = [{**one, "error": output.wire(error)} for one, (_, error) in zip(failed, errors, strict=True)]
    output.done(result, human=human, quiet=[one["name"] for one in made])
    total = counted(len(items), "path")
    end_partly(output, errors, done=bool(made), detail=f"{len(errors)} of {total} could not be registered")


def _named(paths: list[str], prefix: str | None) -> list[tuple[str, str]]:
    """Absolute paths with the names that they are to have. Raises ``UsageError``, ``BadName`` or ``PathNotFound``."""
    if prefix == "":
        raise UsageError(detail="--name is empty")
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


def _entries(directories: list[str], selection: Selection) -> list[str]:
    """The entries of the directories, as far as they are taken, sorted.

    Raises ``UsageError``, ``PathNotFound`` or ``StorageError``.
    """
    paths = []
    for directory in directories:
        try:
            found = sorted(os.listdir(_absolute(directory)))
        except NotADirectoryError:
            raise UsageError(detail=f"{directory} is no directory, whose entries --each would register") from None
        except OSError as error:
            raise StorageError(path=directory, detail=error.strerror or str(error)) from None
        for name in found:
            path = os.path.join(directory, name)
            is_directory = os.path.isdir(path)
            left_out = selection.leaves_out(name, directory=is_directory)
            if selection.takes(name, directory=is_directory) and not left_out:
                paths.append(path)
    if not paths:
        raise UsageError(detail=f"there is nothing in {', '.join(directories)}")
    return paths


def _absolute(path: str) -> str:
    """Raises ``UsageError`` for an empty path, and ``PathNotFound``."""
    if not path:
        raise UsageError(detail="PATH is empty; '.' is the current directory")
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
