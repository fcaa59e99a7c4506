"""``mooncake serve init``: write what an engine is told of the pooled store, and print how to start it."""

from __future__ import annotations

import json
from array import array
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.net import addresses
from mooncake_cli.commands.store import Master, Tenant, master_of
from mooncake_cli.invocation import Invocation
from mooncake_cli.text import printable
from p2pstore.errors import PathNotFound, StorageError, UsageError
from p2pstore.objects.file_system import words
from p2pstore.objects.units import parse_size

if TYPE_CHECKING:
    from p2pstore.integrations.fingerprint import Fingerprint

HASH = "xxh3_128"
"""How the checkpoint is hashed, whatever the settings say: all engines must come to the same digest."""

MODE = 0o644
"""Of the files: an engine may run as another user, and there is no secret in them."""

EXAMPLES = {
    "init": (
        "mooncake serve init vllm /models/llama-3 --master 10.0.0.1",
        "mooncake serve init vllm /models/llama-3 --dtype bfloat16 --block-size 64 --role producer --dir prefill",
        "mooncake serve init lmcache /models/llama-3",
        "mooncake serve init sglang /models/llama-3 --dir /etc/mooncake --force",
    )
}


def init(
    ctx: typer.Context,
    engine: Annotated[str, typer.Argument(metavar="ENGINE", help="vllm, sglang or lmcache.")],
    model: Annotated[Path, typer.Argument(metavar="PATH", help="The checkpoint, a directory.")],
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where to write the files [default: here].")
    ] = Path(),
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", metavar="TYPE", help="In which the engine computes [default: the checkpoint's own]."),
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option("--block-size", metavar="TOKENS", min=1, help="Of a block [default: 16; sglang 64, lmcache 256]."),
    ] = None,
    hash_seed: Annotated[
        str, typer.Option("--hash-seed", metavar="SEED", help="PYTHONHASHSEED of all engines; a number.")
    ] = "0",
    hash_name: Annotated[
        str,
        typer.Option("--hash-algo", metavar="NAME", help="How tokens are hashed: sha256 or sha256_cbor."),
    ] = "sha256",
    role: Annotated[
        str, typer.Option("--role", metavar="ROLE", help="producer puts blocks, consumer takes them, both does both.")
    ] = "both",
    segment_size: Annotated[
        str, typer.Option("--segment-size", metavar="SIZE", help="Memory that each rank gives to the pool.")
    ] = "4GiB",
    protocol: Annotated[str, typer.Option("--protocol", metavar="NAME", help="tcp or rdma.")] = "tcp",
    devices: Annotated[
        str, typer.Option("--devices", metavar="LIST", help="RDMA devices, separated by commas [default: all].")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace files that say something else.")] = False,
    tenant: Tenant = None,
    master: Master = None,
) -> None:
    """Write what an engine is told of the pooled store, and print how to start it.

    Keys of the store name a model by its directory's name alone. So the files have a cache_prefix in them, of the
    checkpoint's digest, the type, the block size and the hash: engines for which one of these differs do not find each
    other's blocks, and no wrong ones. Run it for each engine, on the checkpoint that it loads. All of it is read.
    """
    from p2pstore.integrations import plans  # noqa: PLC0415 - --help must not wait for it
    from p2pstore.integrations.fingerprint import Fingerprint, doubts  # noqa: PLC0415 - as above

    invocation: Invocation = ctx.obj
    output = invocation.output
    if engine not in plans.ENGINES:
        raise UsageError(detail=f"{engine!r} is none of {', '.join(plans.ENGINES)}")
    if role not in plans.KV_ROLES:
        raise UsageError(detail=f"--role: {role!r} is none of {', '.join(plans.KV_ROLES)}")
    if protocol not in {"tcp", "rdma"}:
        raise UsageError(detail=f"--protocol: {protocol!r} is neither tcp nor rdma")
    if not hash_seed.isdecimal() or int(hash_seed) >= 1 << 32:
        raise UsageError(detail=f"--hash-seed: Python takes 0 to 4294967295, and this is {hash_seed!r}")
    settings = invocation.settings(master=master, tenant_id=tenant)
    try:
        segment = parse_size(segment_size)
    except ValueError as error:
        raise UsageError(detail=f"--segment-size: {error}") from None
    if not segment:
        raise UsageError(detail="--segment-size: 0 bytes are nothing to give; each engine gives some")
    if not model.is_dir():
        raise PathNotFound(path=model)
    said = Fingerprint(
        "", dtype or _own_dtype(model), block_size or plans.BLOCK_SIZES[engine], hash_name, str(int(hash_seed))
    )
    fingerprint = _checked(said._replace(weights=_weights(invocation, model)))
    for doubt in doubts(model):
        output.warning(printable(doubt))
    wishes = plans.Wishes(
        model.resolve(),
        fingerprint,
        addresses.join(*master_of(settings)),
        directory.resolve(),
        role,
        segment,
        protocol,
        devices,
        tenant=settings.tenant_id,
    )
    made = plans.plan(engine, wishes)
    paths = _write(wishes.directory, made.files, force=force)
    for path in paths:
        output.message(f"wrote {printable(str(path))}")
    output.data(
        {"cache_prefix": fingerprint.text, "files": [str(path) for path in paths], "commands": list(made.commands)},
        human=printable_lines(made.commands),
        quiet=map(printable, made.commands),
    )


def printable_lines(commands: tuple[str, ...]) -> str:
    """Commands as a shell takes them, one a line."""
    return "\n".join(map(printable, commands))


def _checked(made: Fingerprint) -> Fingerprint:
    """Raises ``UsageError`` for a type or hash that would be read as something else in a key."""
    from p2pstore.integrations.fingerprint import parse  # noqa: PLC0415 - as above

    if parse(made.text) != made:
        raise UsageError(detail=f"--dtype {made.dtype!r} or --hash-algo {made.hash_name!r} cannot be part of a key")
    return made


def _own_dtype(model: Path) -> str:
    """The type of a checkpoint's weights. Raises ``UsageError`` where its configuration does not say."""
    path = model / "config.json"
    try:
        document = json.loads(path.read_bytes())
        found = document.get("dtype") or document.get("torch_dtype")
    except (OSError, ValueError, AttributeError):
        found = None
    if not isinstance(found, str):
        raise UsageError(detail=f"{path} does not say in which type the weights are; give --dtype")
    return found.removeprefix("torch.")


def _weights(invocation: Invocation, model: Path) -> str:
    """How the checkpoint is called: by the digest of a manifest of the files that matter. Raises as ``scan``."""
    from p2pstore.integrations.fingerprint import DECIDES, of_digest  # noqa: PLC0415 - as above
    from p2pstore.objects.selection import Selection  # noqa: PLC0415 - as above
    from p2pstore.objects.source import scan  # noqa: PLC0415 - as above
    from p2pstore.objects.tree_hash import hash_tree  # noqa: PLC0415 - as above

    found = scan(model, Selection(include=DECIDES))
    # Another umask makes no other weights.
    tree = replace(found, modes=array("H", [MODE] * len(found.modes)))
    done = 0
    with invocation.output.progress("hashing") as bar:

        def progress(count: int) -> None:
            nonlocal done
            done += count
            bar.update(done, tree.size)

        return of_digest(hash_tree(tree, hash_name=HASH, progress=progress).digest)


def _write(directory: Path, files: Any, *, force: bool) -> list[Path]:
    """Write documents; those that are there already stay. Raises ``StorageError``, ``UsageError``."""
    from engine.files.writing import replace_file  # noqa: PLC0415 - as above

    wanted = {directory / name: f"{json.dumps(document, indent=2)}\n".encode() for name, document in files.items()}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        other = [path for path, text in wanted.items() if path.exists() and path.read_bytes() != text]
        if other and not force:
            raise UsageError(detail=f"{other[0]} says something else; give --force to replace it, or another --dir")
        for path, text in wanted.items():
            replace_file(path, text, mode=MODE)
    except OSError as error:
        raise StorageError(path=error.filename or directory, detail=words(error)) from None
    return list(wanted)
