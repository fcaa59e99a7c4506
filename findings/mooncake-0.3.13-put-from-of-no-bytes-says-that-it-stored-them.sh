#!/bin/sh
# put_from of 0 bytes returns 0, as for a value that was stored, and nothing is stored.
#
# Version: mooncake-transfer-engine-non-cuda 0.3.13.post1, from PyPI: its client and its mooncake_master.
# Expected: a code below 0, as put and batch_put_from give for an empty value (-600, INVALID_PARAMS); or a value of 0 bytes.
# Behaviour: put_from answers 0, and so does put_parts of empty parts. The key is not there: is_exist 0, get_size -704.
# Output seen:
#   put: -600, batch_put_from: [-600]
#   put_from: 0, put_parts: 0; is_exist: 0 0, get_size: -704 -704
# Needs: python3 with venv, x86-64 Linux; libcurl4, libibverbs1, libnuma1. Fails if the behaviour is another.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check --no-deps mooncake-transfer-engine-non-cuda==0.3.13.post1
cd "$place"
MC_FORCE_TCP=1 MC_TCP_BIND_ADDRESS=127.0.0.1 "$place/venv/bin/python" - <<'P'
import contextlib, ctypes, glob, os, socket, subprocess, sys, time, traceback

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
    memory = ctypes.create_string_buffer(100)
    at = ctypes.addressof(memory)
    assert store.register_buffer(at, 100) == 0
    refused = store.put("one", b""), store.batch_put_from(["two"], [at], [0])
    said = store.put_from("three", at, 0), store.put_parts("four", b"", b"")
    there = [store.is_exist(key) for key in ("three", "four")]
    sizes = [store.get_size(key) for key in ("three", "four")]
    print(f"put: {refused[0]}, batch_put_from: {refused[1]}", file=output)
    print(f"put_from: {said[0]}, put_parts: {said[1]}; is_exist:", *there, end=", get_size: ", file=output)
    print(*sizes, file=output)
    same = (refused, said, there, sizes) == ((-600, [-600]), (0, 0), [0, 0], [-704, -704])
except Exception:
    traceback.print_exc(file=output)
finally:
    master.kill()
    output.flush()
    os._exit(0 if same else 1)  # the client's own threads do not end
P
