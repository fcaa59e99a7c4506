"""The admin surface beside the real master's: the same questions, the same answers, and metrics of the same names."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pstore.kv.errors import KeyNotFound, MasterIsUpstreams
from p2pstore.kv.master.admin_client import AdminClient
from p2pstore.kv.master.metrics import Readings, families, render
from tests.interop.wheels import wheel
from tests.p2pstore.kv.master.table import Served, Table
from tests.ports import reserved_port

START_SECONDS = 60

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The metrics port of a real master without clients."""
    installed = wheel("newest")
    port, metrics = reserved_port(), reserved_port()
    binary = installed.package / "mooncake_master"
    binary.chmod(0o755)
    log = Path(tmp_path_factory.mktemp("master")) / "log"
    options = [f"--rpc_port={port}", f"--metrics_port={metrics}", "--rpc_address=127.0.0.1", "--metrics_host=127.0.0.1"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(binary), *options], stdout=output, stderr=output, env={**os.environ, **installed.environment}
        )
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
        try:
            socket.create_connection(("127.0.0.1", metrics), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    yield f"127.0.0.1:{metrics}"
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def ours() -> Iterator[str]:
    """The same of ours."""
    table = Table()
    table.held.clear()
    table.segments = list  # type: ignore[method-assign]
    table.remove_all = lambda tenant, *, force: 0  # type: ignore[method-assign]
    served = Served(table)
    yield served.address
    served.close()


def ask(address: str, path: str, method: str = "GET") -> tuple[int, str, str]:
    request = urllib.request.Request(f"http://{address}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers["Content-Type"] or "", answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"] or "", error.read().decode()


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/health", "GET"),
        ("/role", "GET"),
        ("/ha_status", "GET"),
        ("/leader", "GET"),
        ("/kv_events/status", "GET"),
        ("/get_all_keys", "GET"),
        ("/get_all_segments", "GET"),
        ("/get_segments_detail", "GET"),
        ("/query_key?key=x", "GET"),
        ("/batch_query_keys?keys=a,b", "GET"),
        ("/batch_query_keys?keys=a%2Cb", "GET"),
        ("/batch_query_keys", "GET"),
        ("/query_segment?segment=x", "GET"),
        ("/api/v1/segments/status?segment=x", "GET"),
        ("/api/v1/segments/status", "GET"),
        ("/api/v1/remove_all", "POST"),
        ("/api/v1/remove_all?force=true&tenant_id=red", "POST"),
    ],
)
def test_the_same_question_has_the_same_answer(real: str, ours: str, path: str, method: str) -> None:
    theirs, own = ask(real, path, method), ask(ours, path, method)
    assert own[0] == theirs[0]
    assert own[1].partition(";")[0] == theirs[1].partition(";")[0]
    if theirs[1].startswith("application/json"):
        assert json.loads(own[2]) == json.loads(theirs[2])
    else:
        assert own[2] == theirs[2]


def test_a_path_that_is_not_there(real: str, ours: str) -> None:
    assert ask(real, "/nothing")[0] == ask(ours, "/nothing")[0] == 404


def test_every_metric_of_the_real_master_is_one_of_ours(real: str) -> None:
    """But for those of its high availability, which this master does not have."""
    _, _, text = ask(real, "/metrics")
    theirs = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    own = dict(re.findall(r"^# TYPE (\S+) (\S+)$", render(families(Readings())), re.MULTILINE))
    missing = {name: kind for name, kind in theirs.items() if own.get(name) != kind and not name.startswith("ha_")}
    assert len(theirs) > 100
    assert missing == {}


def test_our_commands_understand_the_real_master(real: str) -> None:
    client = AdminClient(real)
    status = client.status()
    assert (status["version"], status["state"], status["segments"]) == (None, "serving", [])
    assert status["numbers"]["key_count"] == 0
    assert list(client.keys("")) == []
    with pytest.raises(KeyNotFound):
        client.key("x", "default")
    with pytest.raises(MasterIsUpstreams):
        client.why()
    assert client.remove_all(None, force=False) == 0
