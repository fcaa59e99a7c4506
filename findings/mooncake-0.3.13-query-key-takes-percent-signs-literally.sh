#!/bin/sh
# The HTTP port of mooncake_master does not decode what a client has to encode: a key with an @ is not found by /query_key.
#
# Version: mooncake_master of mooncake-transfer-engine-non-cuda 0.3.13.post1, from PyPI, its client beside it.
# Expected: /query_key?key=model%40rank and /query_key?key=model@rank are one question; HTTP libraries encode the @, and
#   the keys of vLLM and LMCache are full of it.
# Behaviour: the encoded one is looked up with its percent sign: 404, error -704, OBJECT_NOT_FOUND, as for a key that
#   nobody put, while /get_all_keys lists it. Sent with the bare @ it is found.
# Output seen:
#   /get_all_keys: model@rank
#   ?key=model@rank: 200
#   ?key=model%40rank: 404 -704 OBJECT_NOT_FOUND
# Needs: python3 with venv, x86-64 Linux; libcurl4, libibverbs1, libnuma1. Fails if the behaviour is another.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check --no-deps mooncake-transfer-engine-non-cuda==0.3.13.post1
cd "$place"
"$place/venv/bin/python" - <<'P'
import contextlib, glob, os, socket, subprocess, sys, time, urllib.error, urllib.request

with contextlib.ExitStack() as open_until_known:
    ports = [open_until_known.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(2)]
rpc, metrics = ports
(program,) = glob.glob(f"{sys.prefix}/lib/python3*/site-packages/mooncake/mooncake_master")
os.chmod(program, 0o755)
flags = [f"--rpc_port={rpc}", f"--metrics_port={metrics}"]
master = subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ask(path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


try:
    for _ in range(300):
        try:
            ask("/health")
            break
        except OSError:
            time.sleep(0.1)
    log = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(log[1], 1)
    os.dup2(log[1], 2)
    from mooncake.store import MooncakeDistributedStore

    store = MooncakeDistributedStore()
    code = store.setup("127.0.0.1", "P2PHANDSHAKE", 64 << 20, 16 << 20, "tcp", "", f"127.0.0.1:{rpc}")
    put = store.put("model@rank", b"x" * 100)
    os.dup2(log[0], 1)
    keys = ask("/get_all_keys")[1].split()
    bare = ask("/query_key?key=model@rank")[0]
    encoded, why = ask("/query_key?key=model%40rank")
    print("/get_all_keys:", *keys)
    print("?key=model@rank:", bare)
    print("?key=model%40rank:", encoded, *[w for w in ("-704", "OBJECT_NOT_FOUND") if w in why], flush=True)
    same = (code, put, keys, bare, encoded, "-704" in why) == (0, 0, ["model@rank"], 200, 404, True)
finally:
    master.kill()
os._exit(0 if same else 1)  # the client's own threads do not end
P
