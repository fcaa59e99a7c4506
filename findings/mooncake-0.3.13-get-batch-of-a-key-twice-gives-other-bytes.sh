#!/bin/sh
# get_batch of a list in which a key stands twice gives, for one of the two, bytes that are not that key's value.
#
# Version: mooncake-transfer-engine-non-cuda 0.3.13.post1, from PyPI: its client and its mooncake_master.
# Expected: the value, twice; or an error.
# Behaviour: of the two results one has the right length and whatever lay in the client's local buffer: here the value of
#   another key, which was read before. No error, and no word in the log. Of a list without repetitions all are right.
# Output seen:
#   a alone: AAAA, b alone: BBBB
#   a and a: BBBB AAAA
#   wrong in 20 of 20 tries
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


    store = client(64 << 20)
    assert store.put("a", b"A" * 50_000) == 0
    assert store.put("b", b"B" * 50_000) == 0
    wrong, found = 0, []
    for _ in range(20):
        alone = [store.get_batch([key])[0] for key in ("a", "b")]
        assert alone == [b"A" * 50_000, b"B" * 50_000]
        found = store.get_batch(["a", "a"])
        assert [len(value) for value in found] == [50_000, 50_000]
        wrong += found != [alone[0]] * 2
    print("a alone:", alone[0][:4].decode() + ",", "b alone:", alone[1][:4].decode(), file=output)
    print("a and a:", *[value[:4].decode() for value in found], file=output)
    print(f"wrong in {wrong} of 20 tries", file=output)
    same = wrong > 0
except Exception:
    traceback.print_exc(file=output)
finally:
    master.kill()
    output.flush()
    os._exit(0 if same else 1)  # the client's own threads do not end
P
