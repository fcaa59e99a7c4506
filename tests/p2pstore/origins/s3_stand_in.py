"""moto's S3 for tests, in a process of its own, and what it was asked."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from tests.ports import reserved_port

ID = "AKIATESTTESTTEST"
SECRET = "geheimgeheimgeheim"
BINARY = {
    "Content-Type": "application/octet-stream",
    "Authorization": f"AWS4-HMAC-SHA256 Credential={ID}/20260101/us-east-1/s3/aws4_request",
}


class Moto:
    """One server. It can be killed, and started again where it was; what it had is then gone."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "moto.log"
        credentials = directory / "credentials"
        credentials.write_text(f"[default]\naws_access_key_id = {ID}\naws_secret_access_key = {SECRET}\n")
        self._port = reserved_port()  # where it is started again nobody else may have come to listen meanwhile
        self.start()
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
            "AWS_CONFIG_FILE": str(directory / "none"),
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        script = Path(__file__).with_name("moto_server.py")
        command = [sys.executable, "-W", "ignore", str(script), str(self.log), str(self._port)]
        with self.log.with_suffix(".err").open("a") as errors:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), self.log.with_suffix(".err").read_text()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def away(self, *, now: bool) -> None:
        """Answer 503 from now on, or no more."""
        down = self.log.with_suffix(".down")
        down.touch() if now else down.unlink()

    def put(self, path: str, data: bytes = b"") -> None:
        """A bucket, or an object in one."""
        request = urllib.request.Request(f"{self.url}/{path}", data=data, method="PUT", headers=BINARY)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200

    def gets(self, path: str) -> list[dict[str, Any]]:
        """The requests for an object's bytes."""
        asked = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [each for each in asked if each["method"] == "GET" and each["path"] == f"/{path}"]

    def sent(self, path: str) -> int:
        return sum(each["bytes"] for each in self.gets(path))
