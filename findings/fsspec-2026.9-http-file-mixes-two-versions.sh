#!/bin/sh
# An open file of fsspec's HTTP file system gives bytes of two versions, though the server tells a strong ETag.
#
# Version: fsspec 2026.9.0 with aiohttp 3.14.5.
# Expected: an error once the file was replaced, or all of one version: the server tells ETags and ranges, and obeys
#   If-Range, as nginx and object stores do, and fsspec shows the ETag that it was told.
# Behaviour: the ETag is sent with no read, and compared with no answer. Where a file is replaced by one of the same length
#   while it is open, what comes is the beginning of the old and the end of the new. Who reads checkpoints so has to
#   compare ETags, or a hash of the whole.
# Output seen:
#   an ETag was told and shown: True
#   bytes of the old version, then of the new one: True
#   headers with which a version is asked for: []
# Needs: python3 with venv, and the wheels of both. Fails if the behaviour is another.
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check fsspec==2026.9.0 aiohttp==3.14.5
cat >"$scratch/look.py" <<'PYTHON'
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec

SIZE = 1 << 20
now = b"a"
asked = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        asked.append(dict(self.headers.items()))
        data, etag = now * SIZE, '"%s"' % now.decode()
        begin, end, status = 0, SIZE, 200
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if found and self.headers.get("If-Range", etag) == etag:
            begin, end, status = int(found[1]), min(int(found[2] or SIZE - 1) + 1, SIZE), 206
        self.send_response(status)
        self.send_header("ETag", etag)
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{SIZE}")
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[begin:end])


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
system = fsspec.filesystem("http")
url = f"http://127.0.0.1:{server.server_address[1]}/model.bin"
with system.open(url, block_size=SIZE // 4, cache_type="readahead") as file:
    print("an ETag was told and shown:", file.details.get("ETag", system.info(url).get("ETag")) == '"a"')
    first = file.read(16)
    now = b"b"
    file.seek(SIZE - 16)
    last = file.read(16)
print("bytes of the old version, then of the new one:", (first, last) == (b"a" * 16, b"b" * 16))
names = {name.lower() for headers in asked for name in headers}
print("headers with which a version is asked for:", sorted(names & {"if-range", "if-match", "if-unmodified-since"}))
PYTHON
"$scratch/venv/bin/python" "$scratch/look.py" | tee "$scratch/seen"
sed -n 's/^#   \(an ETag\|bytes of\|headers with\)/\1/p' "$0" | diff - "$scratch/seen" && echo "as it was"
