"""moto's S3 in a process of its own: prints its port, and writes to LOG what each GET of an object was, as JSON lines.

While there is a file beside LOG that ends with .down, it answers 503.

    python moto_server.py LOG [PORT]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server


def main() -> None:
    log = Path(sys.argv[1])
    inner = DomainDispatcherApplication(create_backend_app)

    def counted(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if log.with_suffix(".down").exists():
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return []
        body = list(inner(environ, start_response))
        asked = {
            "method": environ["REQUEST_METHOD"],
            "path": environ["PATH_INFO"].encode("latin-1").decode(),
            "range": environ.get("HTTP_RANGE", ""),
            "if_match": environ.get("HTTP_IF_MATCH", ""),
            "authorization": environ.get("HTTP_AUTHORIZATION", ""),
            "bytes": sum(map(len, body)),
        }
        with log.open("a") as stream:
            stream.write(json.dumps(asked) + "\n")
        return body

    port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    server = make_server("127.0.0.1", port, counted, threaded=True, request_handler=MotoRequestHandler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
