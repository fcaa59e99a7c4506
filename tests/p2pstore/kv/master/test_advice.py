"""Each refusal of a master is named, with what to do: those that are in its code, and those that it made over the wire."""

from __future__ import annotations

import ast
import ipaddress
from pathlib import Path

import pytest

import p2pstore.kv.pool
from engine.rpc.codes import Code
from engine.rpc.messages import ObjectMeta, ReplicateConfig, Segment
from p2pstore.kv.master import dispatch, server
from p2pstore.kv.master.advice import ADVICE, ENDED
from p2pstore.kv.master.facts import CallerFacts, KeyFacts, PoolFacts
from p2pstore.kv.master.findings import Finding
from p2pstore.kv.master.server import Master
from p2pstore.kv.master.view import View
from p2pstore.kv.master.why_clients import why_callers
from p2pstore.kv.master.why_key import why_key
from tests.p2pstore.kv.master.wire import BASE, MIB, Client, running, until

NO_FAILURE = {Code.OK, Code.NOT_FOUND, Code.EXISTS}
"""Of these nothing is said: a miss is none, nor is a put of what is there."""

A, B = b"a" * 16, b"b" * 16


def answered() -> set[Code]:
    """The codes that the code of the pool, and of what calls it, names."""
    files = [
        *Path(str(p2pstore.kv.pool.__file__)).parent.glob("*.py"),
        *map(Path, (dispatch.__file__, server.__file__)),
    ]
    named = {
        node.attr
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Code"
    }
    return {Code[name] for name in named if name in Code.__members__}


def causes(found: list[Finding]) -> set[str]:
    assert all(each.good or each.advice for each in found), found
    return {each.cause for each in found}


def why(master: Master) -> set[str]:
    view = View(master)
    return causes(why_callers(view.caller_facts(), view.pool_facts()))


def test_there_is_something_to_do_about_each_code_that_is_answered() -> None:
    codes = answered()
    assert len(codes) > 25
    assert codes - NO_FAILURE <= ADVICE.keys()


@pytest.mark.parametrize("code", sorted(answered() - NO_FAILURE), ids=lambda code: code.name)
def test_a_caller_that_met_it_is_told_of_it(code: Code) -> None:
    pool = PoolFacts("10.0.0.1:50051", 60.0, puts=1, keys=1)
    found = why_callers([CallerFacts("10.0.0.3:1", "0.3.13", calls=3, failures={int(code): 2})], pool)
    (finding,) = [each for each in found if each.cause == f"failed{int(code)}"]
    assert f"2 calls of 10.0.0.3:1 (version 0.3.13) failed with {int(code)}: {code.sentence}" == finding.text
    assert finding.advice


@pytest.mark.parametrize("word", ENDED)
def test_a_caller_that_was_turned_away_is_told_why(word: str) -> None:
    caller = CallerFacts("10.0.0.3:1", "0.3.13", turned_away={word: 1})
    found = {each.cause: each for each in why_callers([caller], PoolFacts("10.0.0.1:50051", 60.0))}
    assert found[word].text == f"10.0.0.3:1 (version 0.3.13) {ENDED[word].text}"
    assert found[word].advice == ENDED[word].advice
    assert "no-call" not in found


async def test_what_it_refuses_over_the_wire_it_says() -> None:
    """Every code that calls can be answered with at once."""
    async with running(tenants=True, tenant_quotas={"small": 10}) as master:
        client, config = await Client.to(master), ReplicateConfig()
        met = {
            await client("PutStart", A, "k", 10, config, "default"),  # no memory
        }
        await client.mount(A)
        await client.put(A, "k")
        await client.put(A, "leased")
        await client("ExistKey", "leased", "default")
        await client("PutStart", A, "begun", 10, config, "default")
        other = Segment(bytes(15) + b"\x01", "other", 7 * BASE, MIB, "h9:1")
        two = ReplicateConfig(group_ids=["only one", "of two"])
        met |= {
            await client("PutStart", A, "large", 1 << 40, config, "default"),
            await client("PutStart", A, "k", 0, config, "default"),
            await client("PutStart", A, "grouped", 10, two, "default"),
            await client("PutStart", A, "dfs", 10, ReplicateConfig(dfs_replica_num=1), "default"),
            await client("PutStart", A, "big", 11, config, "small"),
            await client("MountSegment", other, B),
            await client("PutEnd", B, ObjectMeta("begun"), 4, "default"),
            await client("PutRevoke", A, "k", 4, "default"),
            await client("GetReplicaList", "begun", "default"),
            await client("Remove", "leased", False, "default"),
            await client("QueryTask", B),
            await client("CopyEnd", A, "k", "default"),
            await client("CopyStart", A, "k", "default", "nowhere", ["s1"]),
            await client("CopyStart", A, "k", "default", "s1", ["nowhere"]),
            await client("MountLocalDiskSegment", A, True),
            await client("DynamicReplicaCopyStart", A, "k", "default", "s1", ["s1"], B, 1),
            await client("MountNoFSegment", other, A),
        }
        met = {code if isinstance(code, Code) else Code.of(int(code)) for code in met}
        assert met == {
            Code.NO_SPACE, Code.NO_SEGMENT, Code.BAD_PARAMS, Code.DFS_UNAVAILABLE, Code.QUOTA, Code.SEGMENT_EXISTS,
            Code.ILLEGAL_CLIENT, Code.BAD_WRITE, Code.NOT_READY, Code.LEASED, Code.NO_TASK, Code.NO_TASK_FOR_KEY,
            Code.NO_REPLICA, Code.OFFLOAD_DISABLED, Code.BAD_STATUS, Code.BAD_MODE,
        }  # fmt: skip
        # The five that it met most of are said; all of them are in what scripts get.
        (facts,) = View(master).caller_facts()
        assert {Code.of(number) for number in facts.failures} >= met
        assert len([cause for cause in why(master) if cause.startswith("failed")]) == 5
        view = View(master)
        for key, tenant, said in [
            ("large", "default", "-200"),
            ("grouped", "default", "-600"),
            ("dfs", "default", "-1601"),
            ("big", "small", "-1700"),
        ]:
            found = why_key(view.key_facts(key, tenant), view.pool_facts())
            assert causes(found) == {"refused"}
            assert f"with {said}: " in found[-1].text


async def test_whoever_is_not_among_the_networks_is_told_so_and_not_that_it_never_called() -> None:
    async with running(allow=(ipaddress.ip_network("10.0.0.0/8"),)) as master:
        for _ in range(2):
            await (await Client.to(master)).ended()
        await until(lambda: not master.connections)
        view = View(master)
        found = why_callers(view.caller_facts(), view.pool_facts(), "127.0.0.1")
        (finding,) = [each for each in found if each.cause == "not-allowed"]
        assert finding.text.startswith("127.0.0.1 (version not known) is not among the networks")
        assert finding.text.endswith(", 2 times")
        assert "no-call" not in causes(found)


async def test_whoever_is_cut_off_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FRAME_S", 0.1)
    monkeypatch.setattr(server, "SWEEP_S", 0.05)
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    async with running() as master:
        slow = await Client.to(master)
        slow.writer.write(b"\x15")
        await slow.ended()
        assert why(master) >= {"slow-call"}
        clients = [await Client.to(master) for _ in range(2)]
        for client in clients:
            await client("ServiceReady")
        await Client.to(master)
        await clients[0].ended()
        assert why(master) >= {"slow-call", "too-many"}


async def test_a_defect_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as master:
        client = await Client.to(master)

        def broken(*_: object) -> bool:
            raise RuntimeError("a bug")

        for route in master.routes.values():
            monkeypatch.setattr(route, "handler", broken)
        assert (await client.frame(client.ask("ServiceReady"))).error
        assert why(master) >= {"defect"}


def test_a_state_that_is_not_kept_is_said_of_a_key_too() -> None:
    found = why_key(KeyFacts("k", "default"), PoolFacts("h:1", 9.0, not_kept="no space left on device"))
    assert [each.cause for each in found] == ["not-kept", "never-put"]
