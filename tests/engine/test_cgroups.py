"""What a control group leaves of memory and processors, and whom the kernel killed, in either version's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.cgroups import killed_since, memory_available, memory_groups, memory_kills, memory_left, processors

MIB = 1 << 20


def written(path: Path, **files: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return tmp_path / "proc"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


def test_version_2(proc: Path, root: Path) -> None:
    written(proc / "7", cgroup="0::/job/step\n")
    job = written(root / "job", memory__max=f"{100 * MIB}\n", memory__current=f"{80 * MIB}\n", memory__events="oom 1\n")
    written(job, memory__stat=f"anon 5\ninactive_file {20 * MIB}\nactive_file {10 * MIB}\n")
    step = written(job / "step", memory__max="max\n", memory__current=f"{80 * MIB}\n", memory__events="oom_kill 2\n")
    assert list(memory_groups(7, proc=proc, root=root)) == [step, job]
    assert memory_left(7, proc=proc, root=root) == 50 * MIB
    kills = memory_kills(7, proc=proc, root=root)
    assert list(kills.values()) == [2]
    assert killed_since(kills) is None
    (step / "memory.events").write_text("oom_kill 3\n")
    assert killed_since(kills) == step


def test_version_1(proc: Path, root: Path) -> None:
    written(proc / "7", cgroup="5:devices:/x\n4:memory:/job\n0::/\n")
    no_limit = "9223372036854771712\n"
    job = written(root / "memory" / "job", memory__limit_in_bytes=f"{9 * MIB}\n", memory__usage_in_bytes=f"{8 * MIB}\n")
    written(job, memory__stat=f"inactive_file 1\nactive_file 1\ntotal_inactive_file {MIB}\ntotal_active_file {MIB}\n")
    written(job, memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    written(root / "memory", memory__limit_in_bytes=no_limit, memory__usage_in_bytes="1\n")
    assert memory_left(7, proc=proc, root=root) == 3 * MIB
    kills = memory_kills(7, proc=proc, root=root)
    (job / "memory.oom_control").write_text("oom_kill 1\n")
    assert killed_since(kills) == job


def test_what_can_be_swapped_out_leaves_room(proc: Path, root: Path) -> None:
    written(proc / "7", cgroup="0::/job\n")
    written(root / "job", memory__max=f"{9 * MIB}\n", memory__current=f"{8 * MIB}\n")
    written(proc, meminfo="MemFree: 7 kB\nSwapFree:   2048 kB\n")
    assert memory_left(7, proc=proc, root=root) == 3 * MIB
    written(proc, meminfo="SwapFree:\n")
    assert memory_left(7, proc=proc, root=root) == MIB


def test_where_there_is_nothing_to_read(proc: Path, root: Path) -> None:
    assert memory_left(7, proc=proc, root=root) is None
    assert memory_kills(7, proc=proc, root=root) == {}
    written(proc / "7", cgroup="0::/gone\nnonsense\n")
    assert memory_left(7, proc=proc, root=root) is None
    assert killed_since({root / "gone" / "memory.events": 1}) is None


def test_here() -> None:
    left = memory_left()
    assert left is None or left >= 0
    assert killed_since(memory_kills()) in {None, *memory_groups()}


def test_the_machine_may_have_less_than_a_job_may_take(proc: Path, root: Path) -> None:
    written(proc / "self", cgroup="0::/job\n")
    written(root / "job", memory__max=f"{9 * MIB}\n", memory__current=f"{4 * MIB}\n")
    assert memory_available(proc=proc, root=root) == 5 * MIB
    written(proc, meminfo="MemTotal: 99 kB\nMemAvailable:    2048 kB\n")
    assert memory_available(proc=proc, root=root) == 2 * MIB
    assert memory_available(proc=proc, root=root / "none") == 2 * MIB
    assert memory_available(proc=proc / "none", root=root) is None


ALL = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("step", "job", "found"),
    [
        ("max 100000\n", "max 100000\n", ALL),
        ("max 100000\n", "50000 100000\n", 1),
        ("100000 100000\n", "max 100000\n", 1),
        ("150000 100000\n", "max 100000\n", min(2, ALL)),
        ("900000000 100000\n", "max 100000\n", ALL),
        ("", "5\n", ALL),
        ("1 0\n", "what is this\n", ALL),
    ],
)
def test_processors_of_version_2(proc: Path, root: Path, step: str, job: str, found: int) -> None:
    written(proc / "7", cgroup="0::/job/step\n")
    written(root / "job", cpu__max=job)
    written(root / "job" / "step", cpu__max=step)
    assert processors(7, proc=proc, root=root) == found


@pytest.mark.parametrize(("quota", "found"), [("-1\n", ALL), ("100000\n", 1), ("25000\n", 1), ("", ALL)])
def test_processors_of_version_1(proc: Path, root: Path, quota: str, found: int) -> None:
    written(proc / "7", cgroup="5:devices:/x\n4:cpu,cpuacct:/job\n0::/\n")
    written(root / "cpu" / "job", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000\n")
    assert processors(7, proc=proc, root=root) == found


def test_processors_without_groups(proc: Path, root: Path) -> None:
    assert processors(7, proc=proc, root=root) == ALL
    assert 1 <= processors() <= ALL
