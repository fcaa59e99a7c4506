#!/bin/sh
# A client that gives no memory to the pool says that it is healthy, however long its master has been gone.
#
# Version: mooncake-transfer-engine-non-cuda 0.3.13.post1, from PyPI: its client and its mooncake_master.
# Expected: health_check answers 2 ("master unreachable"), as it does for a client that gives memory.
# Behaviour: with a segment size of 0 it goes on answering 0 ("healthy"), while every call fails with -900.
# Output seen, 15 s after the end of the master:
#   with memory: health_check 2
#   without: health_check 0, is_exist -900, health_check 0
# Needs: python3 with venv, x86-64 Linux; libcurl4, libibverbs1, libnuma1. Fails if the behaviour is another.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check --no-deps mooncake-transfer-engine-non-cuda==0.3.13.post1
cd "$place"
MC_FORCE_TCP=1 MC_TCP_BIND_ADDRESS=127.0.0.1 "$place/venv/bin/python" - <<'P'
import contextlib, glob, os, socket, subprocess, sys, time, traceback

with contextlib.ExitStack() as open_until_known:
    ports = [open_until_known.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(2)]
(program,) = glob.glob(f"{sys.prefix}/lib/python3*/site-packages/mooncake/mooncake_master")
os.chmod(program, 0o755)
flags = [f"--rpc_port={ports[0]}", f"--metrics_port={ports[1]}", "--rpc_address=127.0.0.1"]
master = subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
output = os.fdopen(os.dup(1), "w")  # the client logs to both of ours
nothing = os.open(os.devnull, os.O_WRONLY)
os.dup2(nothing, 1)
os.dup2(nothing, 2)
same = False
try:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", ports[0]), timeout=10).close()
            break
        except OSError:
            time.sleep(0.1)
    from mooncake.store import MooncakeDistributedStore


    def client(memory):
        store = MooncakeDistributedStore()
        code = store.setup("127.0.0.1", "P2PHANDSHAKE", memory, 16 << 20, "tcp", "", f"127.0.0.1:{ports[0]}")
        assert code == 0, code
        return store


    giver, other = client(64 << 20), client(0)
    assert giver.put("key", b"value") == 0
    assert (other.is_exist("key"), giver.health_check(), other.health_check()) == (1, 0, 0)
    master.kill()
    master.wait()
    time.sleep(15)
    health = giver.health_check()
    before, code, after = other.health_check(), other.is_exist("key"), other.health_check()
    print(f"with memory: health_check {health}", file=output)
    print(f"without: health_check {before}, is_exist {code}, health_check {after}", file=output)
    same = (health, before, code, after) == (2, 0, -900, 0)
except Exception:
    traceback.print_exc(file=output)
finally:
    master.kill()
    output.flush()
    os._exit(0 if same else 1)  # the client's own threads do not end
P
