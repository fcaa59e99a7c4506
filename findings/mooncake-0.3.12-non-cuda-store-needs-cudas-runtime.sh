#!/bin/sh
# The store of the wheel named "non-cuda" cannot be imported without CUDA's runtime; the engine of the same wheel can.
#
# Version: mooncake-transfer-engine-non-cuda 0.3.12.post1, from PyPI; 0.3.11.post1 and 0.3.13.post1 beside it.
# Expected: the wheel for machines without CUDA runs there, the whole of it and in each release.
# Behaviour: in 0.3.12.post1 mooncake.store wants libcudart.so.12, and pip installs nothing that has it, since the wheel
#   does not declare it. mooncake.engine is well, and so are both modules of the releases before and after.
# Output seen:
#   0.3.11.post1: engine: imported; store: imported
#   0.3.12.post1: engine: imported; store: libcudart.so.12: cannot open shared object file
#   0.3.13.post1: engine: imported; store: imported
# Needs: python3 with venv, x86-64 Linux without CUDA 12; libcurl4, libibverbs1, libnuma1. Fails if the behaviour is another.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
cd "$place"
for version in 0.3.11.post1 0.3.12.post1 0.3.13.post1; do
    "$place/venv/bin/pip" install -q --disable-pip-version-check --no-deps --target "$place/$version" \
        "mooncake-transfer-engine-non-cuda==$version"
done
"$place/venv/bin/python" - <<'P'
import ctypes, os, subprocess, sys

try:
    ctypes.CDLL("libcudart.so.12")
except OSError:
    pass
else:
    sys.exit("CUDA's runtime is here: on this machine it does not show")


def outcome(version, module):
    done = subprocess.run(
        [sys.executable, "-c", f"import mooncake.{module}"],
        env={**os.environ, "PYTHONPATH": version}, capture_output=True, text=True,
    )
    last = (done.stderr.strip().splitlines() or [""])[-1].removeprefix("ImportError: ")
    return last.rpartition(":")[0] if done.returncode else "imported"


missing = "libcudart.so.12: cannot open shared object file"
seen = {v: [outcome(v, m) for m in ("engine", "store")] for v in ("0.3.11.post1", "0.3.12.post1", "0.3.13.post1")}
for version, (engine, store) in seen.items():
    print(f"{version}: engine: {engine}; store: {store}")
both = ["imported", "imported"]
sys.exit(seen != {"0.3.11.post1": both, "0.3.12.post1": ["imported", missing], "0.3.13.post1": both})
P
