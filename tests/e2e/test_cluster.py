"""The tests' own tool: whatever a test did, nothing of it is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, eventually, is_alive, same


def test_close_ends_agents_their_etcds_and_running_commands(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "cluster")
    keeper = cluster.agent("keeper")
    cluster.etcd()
    member = cluster.agent("member")
    following = member.begin("node", "logs", "-f")
    with member.frozen():
        expected = {keeper.pid, keeper.etcd_pid, member.pid, cluster.etcds[0].pid, following.process.pid}
        # One that has only just been started shows no environment yet.
        eventually(lambda: expected <= set(cluster.processes()), "all of them are seen")
        living = cluster.processes()
        cluster.close()
    assert cluster.processes() == []
    # One that is dying has no environment any more, and is no zombie yet.
    eventually(lambda: not any(is_alive(pid) for pid in living), "all of them are gone")
    cluster.close()


def test_eventually_says_what_it_waited_for() -> None:
    with pytest.raises(AssertionError, match=r"not within 0.1 s: the moon; at last: \[\]"):
        eventually(list, "the moon", patience=0.1)
    assert eventually(iter([0, 0, 3]).__next__, "three") == 3


def test_same_sees_every_difference(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for root in (one, other):
        (root / "sub" / "empty").mkdir(parents=True)
        (root / "sub" / "file").write_bytes(b"content")
    assert same(one, other)
    assert same(one / "sub" / "file", other / "sub" / "file")
    assert not same(one, other / "sub" / "file")
    (other / "sub" / "file").write_bytes(b"contend")
    assert not same(one, other)
    (other / "sub" / "file").write_bytes(b"content")
    (other / "sub" / "empty").rmdir()
    assert not same(one, other)
