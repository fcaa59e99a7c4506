from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import FakeAgent

ANSWER = {"upload": 500_000_000, "download": 0}


def test_people_see_what_holds(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/limits"] = ANSWER
    done = mooncake("node", "limit", "--upload", "500MB/s")
    assert done.stdout == "upload    476.8 MiB/s\ndownload  no limit\n"
    assert agent.body_of("POST /v1/limits") == {"upload": 500_000_000, "download": None}


def test_json_and_quiet(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["POST /v1/limits"] = ANSWER
    assert json.loads(mooncake("node", "limit", "--download", "0", "--json").stdout) == ANSWER
    assert agent.body_of("POST /v1/limits") == {"upload": None, "download": 0}
    assert mooncake("node", "limit", "-q").stdout == "500000000\n0\n"


@pytest.mark.parametrize("rate", ["fast", "-1", "1MB/min"])
def test_a_rate_that_is_none(agent: FakeAgent, mooncake: Mooncake, rate: str) -> None:
    done = mooncake("node", "limit", f"--upload={rate}")
    assert done.returncode == 2
    assert "--upload" in done.stderr
