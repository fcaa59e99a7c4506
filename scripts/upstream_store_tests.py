"""Run upstream's own tests of its store's client, from a checkout of Mooncake, against our master and metadata server.

    git clone https://github.com/kvcache-ai/Mooncake
    .venv/bin/python scripts/upstream_store_tests.py Mooncake/mooncake-wheel/tests

The client is the wheel that is installed; with ``--compatible`` our class stands in the place of the wheel's. Tests of
tensors want torch, safetensors, numpy and msgpack besides. With ``--real`` the master is upstream's, to compare, and
with ``--python`` another interpreter runs the tests. The servers listen at upstream's ports, 50051 and 8080, since some
tests know no others; the machine needs an address besides loopback, which upstream's client looks for.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

FILES = (
    "test_distributed_object_store.py",
    "test_replicated_distributed_object_store.py",
    "test_put_get_tensor.py",
    "test_safetensor_functions.py",
    "test_batch_replica_clear.py",
    "test_buffer_pool_native.py",
    "test_structured_object_store.py",
    "test_dummy_client.py",
)
"""Those that need a master and no GPU; for the last one upstream's ``mooncake_client`` runs, too."""

MASTER, METADATA, HELPER = 50051, 8080, 50052
LEASE_MS = 500
"""As upstream's own script has it: the tests wait for leases to end."""

START_SECONDS = 60
FILE_SECONDS = 900


@contextlib.contextmanager
def server(command: list[str], port: int) -> Iterator[None]:
    """A process that listens at a port of loopback."""
    if reachable(port):
        sys.exit(f"somebody listens at port {port} already; end that first")
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not reachable(port):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{' '.join(command)} does not listen at port {port}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def reachable(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wheel(program: str) -> str:
    found = importlib.util.find_spec("mooncake")
    if found is None or not found.submodule_search_locations:
        sys.exit("upstream's wheel is not installed here")
    path = Path(next(iter(found.submodule_search_locations))) / program
    path.chmod(0o755)
    return str(path)


COMPATIBLE = (
    "from p2pstore.integrations import shim; shim.install(); import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
)
"""Has ``mooncake.store`` be ours, and runs the tests."""


def run(python: str, directory: Path, name: str, *, compatible: bool) -> bool:
    """Run one file, and say how it went."""
    variables = {
        "MC_METADATA_SERVER": f"http://127.0.0.1:{METADATA}/metadata",
        "MASTER_SERVER": f"127.0.0.1:{MASTER}",
        "DEFAULT_KV_LEASE_TTL": str(LEASE_MS),
        "MC_FORCE_TCP": "1",
        "GLOG_minloglevel": "3",
    }
    if compatible:
        paths = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
        variables |= {"MOONCAKE_COMPAT": "1", "PYTHONPATH": os.pathsep.join(paths)}
    start = ["-c", COMPATIBLE] if compatible else ["-m", "pytest"]
    command = [python, *start, "-q", "-p", "no:cacheprovider", "-rfE", name]
    environment = {**os.environ, **variables}
    try:
        done = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, timeout=FILE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"{name}: not over after {FILE_SECONDS} s, and killed", flush=True)
        return False
    lines = done.stdout.splitlines()
    counts = [line for line in lines if re.search(r"\d+ (passed|failed|error|skipped)", line)]
    print(f"{name}: {counts[-1].strip('= ') if counts else f'status {done.returncode}'}", flush=True)
    for line in lines:
        if re.match(r"(FAILED|ERROR) ", line):
            print(f"    {line.partition(' - ')[0]}", flush=True)
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="mooncake-wheel/tests of a checkout")
    parser.add_argument("files", nargs="*", help="some of the files, in place of all")
    parser.add_argument("--real", action="store_true", help="against upstream's own master")
    parser.add_argument("--compatible", action="store_true", help="with our class in place of the wheel's")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs the tests")
    options = parser.parse_intermixed_args()
    ours = [sys.executable, "-m", "mooncake_cli"]
    lease = ["--default_kv_lease_ttl", str(LEASE_MS)]
    if options.real:
        master = [wheel("mooncake_master"), f"--default_kv_lease_ttl={LEASE_MS}", "--rpc_address=127.0.0.1"]
    else:
        master = [*ours, "store", "master", *lease]
    good = True
    with contextlib.ExitStack() as stack:
        stack.enter_context(server([*ours, "metadata", "serve", "--listen", f"127.0.0.1:{METADATA}"], METADATA))
        stack.enter_context(server(master, MASTER))
        for name in options.files or FILES:
            if not (options.directory / name).exists():
                sys.exit(f"{options.directory} has no {name}")
            helper = name == "test_dummy_client.py"
            with server([wheel("mooncake_client")], HELPER) if helper else contextlib.nullcontext():
                good = run(options.python, options.directory.resolve(), name, compatible=options.compatible) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
