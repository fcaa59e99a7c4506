r"""What a get through a pipe, and a get of one shard of several, take: memory, bytes that move, and time.

::

    python benchmarks/parts.py [--mib 10240] [--shard-mib 128] [--transports tcp,local] [--dir DIR] [--json]

A file of random bytes is registered with one agent, and ``mooncake get NAME - | cmp - FILE`` run with another; then
eight shards as one object, and ``mooncake get NAME DEST --include`` of one of them, compared too. Memory is what an
agent had at most (VmHWM), all of it and beside what it had before. ``cat FILE | cmp - FILE`` is timed beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkouts import OURS, Checkout
from counts import as_count
from many_files import Agent

MIB = 1 << 20
BLOCK = 16 * MIB
SHARDS = 8


def make_file(path: Path, mib: int) -> None:
    """A file of random bytes: no two chunks of it are equal."""
    with path.open("wb") as file:
        left = mib * MIB
        while left:
            left -= file.write(os.urandom(min(left, BLOCK)))


def piped(command: list[str], file: Path) -> float:
    """Seconds of a command whose output is compared with a file as it comes."""
    line = f"set -o pipefail; {shlex.join(command)} | cmp - {shlex.quote(str(file))}"
    began = time.perf_counter()
    subprocess.run(["bash", "-c", line], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


@contextlib.contextmanager
def two_agents(checkout: Checkout, scratch: Path) -> Iterator[tuple[Path, Agent, Agent]]:
    """One that has, and one that gets, with their homes ``a`` and ``b`` in one directory."""
    with contextlib.ExitStack() as stack:
        home = Path(tempfile.mkdtemp(dir=scratch))
        source = Agent(checkout, home / "a")
        stack.callback(source.stop)
        getter = Agent(checkout, home / "b", source.metadata)
        stack.callback(getter.stop)
        yield home, source, getter


def through_a_pipe(checkout: Checkout, scratch: Path, file: Path, transport: str) -> dict[str, Any]:
    """Bring all of a file to standard output, and what both agents had in memory."""
    with two_agents(checkout, scratch) as (home, source, getter):
        source.run("register", str(file), "--name", "pipe")
        idle = getter.most_mib
        get = [
            str(checkout.python),
            "-m",
            "mooncake_cli",
            "--home",
            str(home / "b"),
            "get",
            "pipe",
            "-",
            "--transport",
            transport,
        ]
        seconds = piped(get, file)
        return {
            "seconds": seconds,
            "getter_mib": getter.most_mib,
            "getter_idle_mib": idle,
            "source_mib": source.most_mib,
        }


def one_shard(checkout: Checkout, scratch: Path, shards: Path, transport: str) -> dict[str, Any]:
    """Bring one shard of several, and what was moved for it."""
    with two_agents(checkout, scratch) as (home, source, getter):
        size = source.run("register", str(shards), "--name", "shards")["size"]
        dest = home / "got"
        name = f"model-{3:05d}.safetensors"
        got = getter.run("get", "shards", str(dest), "--include", name, "--transport", transport)
        subprocess.run(["cmp", shards / name, dest / name], check=True)
        if os.listdir(dest) != [name]:
            raise SystemExit(f"{dest} has more than was asked for")
        return {"size": size, "pulled": got["bytes_pulled"], "share": got["bytes_pulled"] / size}


def main() -> int:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=as_count, default=10240, help="of the file (default %(default)s)")
    parser.add_argument("--shard-mib", type=as_count, default=128, help="of each of eight shards (default %(default)s)")
    parser.add_argument("--transports", default="tcp,local", help="some of: %(default)s")
    parser.add_argument("--dir", help="where files are made (default: the system's temporary directory)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    checkout = Checkout(OURS)
    scratch = Path(tempfile.mkdtemp(prefix="mooncake-parts-", dir=options.dir))
    rows = []
    try:
        file, shards = scratch / "file", scratch / "shards"
        make_file(file, options.mib)
        shards.mkdir()
        for number in range(SHARDS):
            make_file(shards / f"model-{number:05d}.safetensors", options.shard_mib)
        cat = piped(["cat", str(file)], file)
        for transport in options.transports.split(","):
            row = {
                "transport": transport,
                "pipe": through_a_pipe(checkout, scratch, file, transport),
                "shard": one_shard(checkout, scratch, shards, transport),
            }
            rows.append(row)
            print(f"{transport}: {row}", file=sys.stderr)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if options.json:
        print(json.dumps({"mib": options.mib, "cat_seconds": cat, "rows": rows}))
        return 0
    print(f"cat into cmp, {options.mib} MiB: {cat:.1f} s")
    for row in rows:
        pipe, shard = row["pipe"], row["shard"]
        print(
            f"{row['transport']}: get NAME - into cmp, {options.mib} MiB: {pipe['seconds']:.1f} s; the getter had "
            f"{pipe['getter_mib']:.0f} MiB at most ({pipe['getter_idle_mib']:.0f} before), "
            f"the source {pipe['source_mib']:.0f}; --include of one of {SHARDS} shards pulled "
            f"{shard['pulled']} of {shard['size']} bytes ({shard['share']:.2%})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
