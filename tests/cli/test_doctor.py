from __future__ import annotations

import json

from tests.cli.conftest import Mooncake
from tests.cli.fake_agent import FakeAgent, task_answer


def test_without_an_agent_nothing_is_broken(mooncake: Mooncake) -> None:
    done = mooncake("doctor", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["ok"] is True
    found = {check["subject"]: check["verdict"] for check in document["checks"]}
    assert found["agent"] == "warning"
    assert found["tcp to ourselves"] == "ok"
    people = mooncake("doctor").stdout
    assert "nothing that is needed is broken" in people
    assert "run 'mooncake node start'" in people


def test_a_dead_metadata_server_ends_with_6(mooncake: Mooncake) -> None:
    done = mooncake("doctor", "--metadata", "etcd://127.0.0.1:1")
    assert done.returncode == 6
    assert "etcd 127.0.0.1:1" in done.stdout
    assert "2 checks failed" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_peer_is_looked_at_by_the_agent(agent: FakeAgent, mooncake: Mooncake) -> None:
    checks = [{"subject": "a to b, tcp", "verdict": "failed", "detail": "refused", "advice": "look", "code": 5}]
    agent.answers["GET /v1/paths"] = {"checks": checks}
    agent.answers["GET /v1/status"]["metadata"] = "memory://x"
    done = mooncake("doctor", "b", "-q")
    assert done.returncode == 5
    assert done.stdout == "a to b, tcp\n"
    assert agent.body_of("GET /v1/paths") == "peer=b"


def test_an_empty_peer_is_no_peer(mooncake: Mooncake) -> None:
    done = mooncake("doctor", "")
    assert done.returncode == 2
    assert "PEER is empty" in done.stderr


def test_a_peer_without_an_agent(mooncake: Mooncake) -> None:
    done = mooncake("doctor", "b", "--json")
    assert done.returncode == 3
    assert "no agent" in json.dumps(json.loads(done.stdout)["checks"][-1])


def test_an_address_that_others_cannot_reach_is_a_warning(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/status"] |= {"metadata": "memory://x", "warnings": ["others are told 127.0.1.1"]}
    done = mooncake("doctor")
    assert done.returncode == 0, done.stderr
    assert "published address warning others are told 127.0.1.1" in " ".join(done.stdout.split())
    assert "published address: name an address, interface or network that others reach" in done.stdout


def test_an_agent_from_other_surroundings_is_a_warning(agent: FakeAgent, mooncake: Mooncake) -> None:
    agent.answers["GET /v1/status"] |= {"metadata": "memory://x", "process": {"version": "0.0.1"}}
    done = mooncake("doctor")
    assert done.returncode == 0, done.stderr
    assert "agent's surroundings warning the agent is of version 0.0.1" in " ".join(done.stdout.split())
    assert "run 'mooncake node stop', and 'mooncake node start' here" in done.stdout


def test_a_place_that_this_host_has_not_ends_with_2(mooncake: Mooncake) -> None:
    done = mooncake("doctor", MOONCAKE_LISTEN="198.51.100.0/24")
    assert done.returncode == 2
    assert "no address of this host is in 198.51.100.0/24" in done.stdout


def test_a_task_of_the_agent_that_does_not_run_ends_with_1(agent: FakeAgent, mooncake: Mooncake) -> None:
    failed = {"failures": 2, "last_error": "RuntimeError: a bug", "last_failure": "2026-08-22T10:00:00Z"}
    status = agent.answers["GET /v1/status"]
    status["metadata"] = "memory://x"
    status["tasks"] = [task_answer("lease keeper", **failed)]
    done = mooncake("doctor", "--json")
    assert done.returncode == 0, done.stderr
    assert {c["subject"]: c["verdict"] for c in json.loads(done.stdout)["checks"]}["background task"] == "warning"
    status["tasks"] = [task_answer("lease keeper", state="restarting", **failed)]
    done = mooncake("doctor")
    assert done.returncode == 1, done.stderr
    assert "lease keeper, 2 times, last at 2026-08-22T10:00:00Z: RuntimeError: a bug" in done.stdout
