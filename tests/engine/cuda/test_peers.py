"""Which GPUs copy to one another: what CUDA says is tried, once, and nothing is left of the try."""

from __future__ import annotations

import logging
import re

import pytest

from engine.cuda import load, peers
from engine.cuda.driver import ILLEGAL_ADDRESS
from engine.cuda.fake_driver import FakeDriver
from engine.errors import GpuFailed
from tests.engine.cuda.gpus import fake, nothing_left


def test_peers_are_one_group_and_each_two_are_tried_once() -> None:
    with fake(4) as driver:
        found = load.cuda().peers
        assert found.groups([2, 0, 2, 1, 3]) == [(2, 0, 1, 3)]
        tried = driver.to_peers
        assert tried == 4 * 3 * peers.TRIED_BYTES
        assert found.groups(range(4)) == [(0, 1, 2, 3)]
        assert driver.to_peers == tried
        nothing_left(driver)


def test_one_gpu_is_its_own_peer() -> None:
    with fake(1) as driver:
        assert load.cuda().peers.groups([0, 0, 0]) == [(0,)]
        assert driver.to_peers == 0


def test_strangers_are_in_groups_of_their_own() -> None:
    strangers = [(0, 2), (0, 3), (1, 2), (1, 3)]
    with fake(4, strangers=strangers) as driver:
        assert load.cuda().peers.groups(range(4)) == [(0, 1), (2, 3)]
        nothing_left(driver)


@pytest.mark.parametrize("pair", [(0, 1), (1, 0)])
def test_what_arrives_as_something_else_is_not_relied_upon(
    pair: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    with fake(2, garbling=[pair]) as driver:
        assert load.cuda().peers.groups(range(2)) == [(0,), (1,)]
        nothing_left(driver)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"GPU {pair[0]} says that it can copy to GPU {pair[1]}" in record.message


def test_what_does_not_arrive_is_not_relied_upon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it uses is left alone then: it may still come."""
    monkeypatch.setattr(peers, "TRY_SECONDS", 0.01)
    with fake(2) as driver:
        driver.pause()
        assert not load.cuda().peers.reach(0, 1)
        assert driver.open["pinned"] == 2 * peers.TRIED_BYTES


@pytest.mark.parametrize("call", ["open_peer", "memory", "pin", "stream", "event", "to_device", "record"])
def test_a_try_that_cannot_be_made_leaves_nothing(call: str, caplog: pytest.LogCaptureFixture) -> None:
    with fake(2) as driver:
        driver.refuse(call)
        assert load.cuda().peers.groups(range(2)) == [(0,), (1,)]
        if call not in {"event", "record"}:  # then a copy may be under way
            nothing_left(driver)
        assert driver.freed_in_use == 0
    assert re.search("GPU [01] is not asked to copy to GPU [01]: .*OUT_OF_MEMORY", caplog.text)


def test_a_gpu_that_is_lost_is_told() -> None:
    with fake(2) as driver:
        driver.break_down(1)
        with pytest.raises(GpuFailed, match=ILLEGAL_ADDRESS):
            load.cuda().peers.groups(range(2))


def test_a_gpu_that_is_not_there(gpu: FakeDriver) -> None:
    assert not load.cuda().peers.reach(0, gpu.count())
