"""Runs a master, with its admin surface beside it, from its settings to the signal that ends it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from engine import signals
from engine.net import addresses, listening, sockets
from p2pstore.kv.errors import MasterUnguarded
from p2pstore.kv.master.http import AdminServer
from p2pstore.kv.master.journal import Journal
from p2pstore.kv.master.server import Master, MasterSettings
from p2pstore.kv.master.view import View
from p2pstore.kv.pool.pool import Pool
from p2pstore.kv.pool.settings import PoolSettings
from p2pstore.kv.pool.walks import to_the_end
from p2pstore.settings.master_keys import networks, tenant_quotas

if TYPE_CHECKING:
    from p2pstore.settings.settings import Settings

T = TypeVar("T")

GC_THRESHOLDS = (50_000, 50, 1000)
"""For the garbage collector: millions of small objects live long, and looking at all of them takes 100 ms."""

OWN_HOST = "127.0.0.0/8,::1"
"""Who may call besides those who are allowed."""


@dataclass(frozen=True)
class Running:
    """What people are told of a master that serves.

    Where, and to whom beside this host (None: whoever reaches it); where its state is kept (None: nowhere), and how
    many keys it knew from there.
    """

    address: str
    metrics: str
    allow: str | None
    state: Path | None
    keys: int


async def serve(settings: Settings, tell: Callable[[Running], None]) -> None:
    """Serve clients and people until SIGTERM, SIGINT or SIGHUP. ``tell`` is called once both can connect.

    Raises ``UsageError`` (``PortTaken``, ``NoSuchAddress``) and ``MasterUnguarded`` where it cannot listen,
    ``StateTaken`` and ``StateUnusable`` where it cannot keep its state, and ``NodeEnded`` when a part of it that it
    cannot be without does not work.
    """
    ended = asyncio.Event()
    for number in signals.ending():
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    allow = settings.master_allow
    may_call = networks(f"{allow},{OWN_HOST}") if allow is not None else ()
    host, port = _guarded(settings.master_listen, settings)
    listener = sockets.listen(*_guarded(settings.master_metrics, settings))
    state = settings.master_state
    with contextlib.ExitStack() as stack:
        stack.callback(listener.close)
        pool = Pool(replace(pool_settings(settings), log=state is not None), time.monotonic)
        master = Master(MasterSettings(host, port, may_call), pool)
        admin = AdminServer(View(master), may_call)
        try:
            await admin.start(listener)
            journal = None
            if state is not None:
                journal = await _unless(ended, to_the_end(Journal.opening(state, pool)))
                if journal is None:
                    return
                stack.callback(journal.close)
                master.journal = journal
            known = sum(len(pool.names(tenant)) for tenant in pool.tenants())
            await master.start()
            if journal is not None:
                master.supervisor.start("state", "master", journal.keep)
            tell(Running(master.address, addresses.join(*listener.getsockname()[:2]), allow, state, known))
            calm_collector()
            await _either(ended, master)
        finally:
            await master.stop()
            await admin.close()


async def _unless(ended: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What comes of it; None where the end comes first."""
    task, end = asyncio.ensure_future(work), asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait((task, end), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, end):
            each.cancel()
        await asyncio.gather(task, end, return_exceptions=True)


async def _either(ended: asyncio.Event, master: Master) -> None:
    """Wait for a signal, or for the master to give up, which is raised."""
    failure = master.failure
    assert failure is not None  # noqa: S101 - it was started
    failure.add_done_callback(lambda _: ended.set())
    await ended.wait()
    if failure.done():
        raise failure.result()


def calm_collector() -> None:
    """Have the garbage collector look at what is there now never again, and seldom at what comes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _guarded(place: str, settings: Settings) -> tuple[str, int]:
    """Where to listen. Raises ``MasterUnguarded`` where others could reach it and nobody said who may."""
    host, port = addresses.given_place(place)
    host = listening.address_of(host)
    if not (settings.master_insecure or settings.master_allow) and sockets.is_exposed(host):
        raise MasterUnguarded(address=addresses.join(host, port))
    return host, port


def pool_settings(settings: Settings) -> PoolSettings:
    """What the pool is told."""
    return PoolSettings(
        lease_ms=round(settings.master_lease * 1000),
        soft_pin_ms=round(settings.master_soft_pin * 1000),
        max_soft_pin_ms=round(settings.master_max_soft_pin * 1000),
        evict_soft_pinned=settings.master_evict_soft_pinned,
        high_watermark=settings.master_watermark,
        eviction_ratio=settings.master_eviction_ratio,
        client_ttl=settings.master_client_ttl,
        put_discard=settings.master_put_discard,
        put_release=settings.master_put_release,
        allocation=settings.master_allocation,
        tenants=settings.master_tenants or bool(settings.master_tenant_quotas),
        tenant_quotas=tenant_quotas(settings.master_tenant_quotas) if settings.master_tenant_quotas else {},
        max_keys=settings.master_max_keys,
        offload=settings.master_offload,
        offload_on_evict=settings.master_offload_on_evict,
        promotion_on_hit=settings.master_promotion,
    )
