"""Samples of a profile are told apart by thread and by the work that they are of."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PROFILE = """\
pull-node1-0
\tffffffff81000000 copy_folio_from_iter_atomic ([kernel.kallsyms])
\tffffffff81000001 __x64_sys_pwrite64 ([kernel.kallsyms])
\t    7f0000000000 __GI___pwrite64 (/usr/lib/libc.so.6)

python
\t    7f0000000001 _PyEval_EvalFrameDefault (/usr/lib/libpython3.11.so.1.0)

python
\tffffffff81000002 finish_task_switch.isra.0 ([kernel.kallsyms])
\tffffffff81000003 __x64_sys_epoll_wait ([kernel.kallsyms])

data worker:1
\tffffffff81000004 tcp_ack ([kernel.kallsyms])
\tffffffff81000005 handle_softirqs ([kernel.kallsyms])
\tffffffff81000006 __x64_sys_pwrite_nothing ([kernel.kallsyms])

grpc_global_tim
\tffffffff81000007 clear_page ([kernel.kallsyms])

"""


def test_samples_by_thread_and_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import broadcast_where

    try:
        counted = broadcast_where.samples(iter(PROFILE.splitlines()))
    finally:
        for name in ("broadcast_where", "broadcast_processor"):
            sys.modules.pop(name, None)
    assert dict(counted) == {
        ("receive, hash, write", "writes to the page cache"): 1,
        ("event loop", "interpreter and libraries"): 1,
        ("event loop", "sleeping and waking"): 1,
        ("send", "network"): 1,
        ("other", "other of the kernel"): 1,
    }
