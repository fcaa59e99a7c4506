"""The main job, for real, on this machine: two agents, and a checkpoint that goes from one to the other over TCP.

    make demo
    DEMO_MIB=2048 make demo

Everything happens in a temporary directory, with the public command line, and is stopped and removed at the end, also
after Ctrl-C. ``DEMO_MIB`` is the checkpoint's size in MiB. ``TMPDIR`` says where the directory is made; it needs twice
the size.
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from engine.signals import cleaned_up

MIB = 1 << 20
DEFAULT_MIB = 256
MAX_MIB = 1 << 20
SHARDS = 4
TENSORS_PER_SHARD = 2
BFLOAT16_BYTES = 2
SPARE_BYTES = 256 * MIB
"""Room beside the two copies: etcd's log, the agents' records."""
COMMAND_SECONDS = 600
STOP_SECONDS = 120

MOONCAKE = str(Path(sys.executable).with_name("mooncake"))

console = Console(highlight=False)


class DemoFailed(Exception):
    """Something was not as it should be; the text says what."""


def main() -> int:
    """Run the demonstration; the exit status."""
    try:
        size = size_from_environment()
        with cleaned_up(), workplace(size) as directory:
            run(directory, size)
    except DemoFailed as error:
        console.print(f"demo failed: {error}", style="bold red", markup=False)
        return 1
    except (KeyboardInterrupt, SystemExit):
        console.print("interrupted; everything is stopped and removed", style="yellow")
        return 128 + signal.SIGINT
    return 0


def run(directory: Path, size: int) -> None:
    """The demonstration itself."""
    console.print(f"A checkpoint of {size / MIB:,.0f} MiB, sharded as on Hugging Face, goes from alpha to beta.")
    console.print(f"$ cd {directory}", style="cyan", markup=False, soft_wrap=True)
    make_checkpoint(directory / "checkpoint", size)

    with agent(directory, "alpha") as alpha, agent(directory, "beta") as beta:
        # The first agent is given no metadata server, so it starts an etcd for itself.
        first = alpha("node", "start", "--node", "alpha")
        registered = alpha("register", "checkpoint", "--name", "models/demo")

        # The second is told where that etcd is. Between machines, both would be told of one that you run.
        beta("node", "start", "--node", "beta", "--metadata", first["metadata"])
        pulled = beta("get", "models/demo", "copy", "--transport", "tcp")
        info = beta("info", "models/demo")

        files = compare(directory / "checkpoint", directory / "copy")
        check(registered, pulled, info)
        console.print(summary(registered, pulled, info, files))


@contextlib.contextmanager
def agent(directory: Path, home: str) -> Iterator[Any]:
    """A function that runs ``mooncake`` in ``directory`` with a home of its own, whose agent is ended at the end."""

    def mooncake(*arguments: str) -> dict[str, Any]:
        words = ["--home", home, *arguments, "--json"]
        console.print(f"$ mooncake {shlex.join(words)}", style="cyan", markup=False, soft_wrap=True)
        return run_command([MOONCAKE, *words], directory)

    try:
        yield mooncake
    finally:
        stop(directory / home)


def run_command(command: list[str], directory: Path) -> dict[str, Any]:
    """The JSON that a command prints; ``DemoFailed`` with what it said when it fails."""
    environment, pipe = clean_environment(directory), subprocess.PIPE
    with subprocess.Popen(
        command, cwd=directory, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            output, messages = process.communicate(timeout=COMMAND_SECONDS)
        except BaseException:
            # In a session of its own, Ctrl-C is ours alone to handle. An agent can be stopped once it has started.
            if "start" not in command:
                process.terminate()
            process.wait(STOP_SECONDS)
            raise
    if process.returncode != 0:
        raise DemoFailed(f"'mooncake {command[3]}' ended with status {process.returncode}: {messages.strip()}")
    result: dict[str, Any] = json.loads(output)
    return result


def clean_environment(directory: Path) -> dict[str, str]:
    """Ours without the settings that the user may have for agents of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MOONCAKE_")}
    return {**kept, "XDG_CONFIG_HOME": str(directory)}


def stop(home: Path) -> None:
    """End the agent of ``home`` and its etcd, if it has any."""
    if home.exists():
        command = [MOONCAKE, "--home", str(home), "node", "stop"]
        environment = clean_environment(home.parent)
        subprocess.run(command, env=environment, capture_output=True, timeout=STOP_SECONDS, check=False)


@contextlib.contextmanager
def workplace(size: int) -> Iterator[Path]:
    """A directory with room for two copies, removed at the end."""
    free, needed = shutil.disk_usage(tempfile.gettempdir()).free, 2 * size + SPARE_BYTES
    if free < needed:
        place = tempfile.gettempdir()
        raise DemoFailed(f"{place} has {free // MIB} MiB free, {needed // MIB} are needed; set TMPDIR or DEMO_MIB")
    directory = Path(tempfile.mkdtemp(prefix="mooncake-demo-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def size_from_environment() -> int:
    """Bytes of the checkpoint's tensors."""
    text = os.environ.get("DEMO_MIB") or str(DEFAULT_MIB)
    if not text.isdecimal() or not SHARDS <= int(text) <= MAX_MIB:
        raise DemoFailed(f"DEMO_MIB is {text!r}, and must be a number from {SHARDS} to {MAX_MIB}")
    return int(text) * MIB


def make_checkpoint(directory: Path, size: int) -> None:
    """A sharded checkpoint of ``size`` bytes: configuration, index, and shards that safetensors can open."""
    directory.mkdir()
    weight_map: dict[str, str] = {}
    elements = size // SHARDS // TENSORS_PER_SHARD // BFLOAT16_BYTES
    for shard in range(SHARDS):
        file = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        names = [f"model.layers.{shard}.weight_{number}" for number in range(TENSORS_PER_SHARD)]
        write_safetensors(directory / file, dict.fromkeys(names, elements))
        weight_map.update(dict.fromkeys(names, file))
    total = SHARDS * TENSORS_PER_SHARD * elements * BFLOAT16_BYTES
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    config = {"architectures": ["DemoForCausalLM"], "num_hidden_layers": SHARDS, "torch_dtype": "bfloat16"}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_safetensors(file: Path, tensors: dict[str, int]) -> None:
    """One-dimensional bfloat16 tensors of random bytes, by name and number of elements.

    The format: 8 bytes with the header's length (little endian), the header as JSON padded with blanks to a multiple of
    8, and the data (https://github.com/huggingface/safetensors#format).
    """
    header: dict[str, Any] = {}
    offset = 0
    for name, elements in tensors.items():
        end = offset + elements * BFLOAT16_BYTES
        header[name] = {"dtype": "BF16", "shape": [elements], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        while offset > 0:
            offset -= stream.write(os.urandom(min(offset, 4 * MIB)))


def compare(original: Path, copy: Path) -> int:
    """Compare two directories byte by byte, without a hash or any code of ours; the number of files."""
    names, copied = ([path.name for path in sorted(directory.iterdir())] for directory in (original, copy))
    if names != copied:
        raise DemoFailed(f"the copy has the files {copied}, the original {names}")
    for name in names:
        if not filecmp.cmp(original / name, copy / name, shallow=False):
            raise DemoFailed(f"{name} differs in the copy")
    return len(names)


def check(registered: dict[str, Any], pulled: dict[str, Any], info: dict[str, Any]) -> None:
    """See that it went as it was meant to go: all of it over TCP from alpha, and both hold all of it now."""
    went = (pulled["transport"], pulled["bytes_pulled"], list(pulled["peers"]))
    if went != ("tcp", registered["size"], ["alpha"]):
        raise DemoFailed(f"not every byte came from alpha over TCP: {pulled}")
    complete = sorted(replica["node"] for replica in info["replicas"] if replica["state"] == "complete")
    if complete != ["alpha", "beta"]:
        raise DemoFailed(f"alpha and beta should hold the object, and {complete} do")


def summary(registered: dict[str, Any], pulled: dict[str, Any], info: dict[str, Any], files: int) -> Table:
    """What happened, one row a step."""
    size = registered["size"] / MIB
    got, sources = pulled["bytes_pulled"] / MIB, " and ".join(pulled["peers"])
    holders = ", ".join(f"{replica['node']} ({replica['role']})" for replica in info["replicas"])
    table = Table(title="What happened", title_justify="left", show_header=True)
    table.add_column("Step")
    table.add_column("Result", overflow="fold")
    table.add_column("Seconds", justify="right")
    rows = [
        ("register", f"{size:,.1f} MiB in {registered['files']} files, {registered['chunks']} chunks", registered),
        ("get", f"{got:,.1f} MiB by {pulled['transport']} from {sources}", pulled),
        ("compare", f"{files} files, byte by byte: equal", {}),
        ("info", f"held by {holders}", {}),
    ]
    for step, result, timed in rows:
        table.add_row(step, result, f"{timed['seconds']:.2f}" if timed else "")
    return table


if __name__ == "__main__":
    sys.exit(main())
