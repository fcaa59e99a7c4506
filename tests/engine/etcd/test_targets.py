"""What gRPC is told to connect to."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.etcd.targets import MAX_PATH, target_of, unix_endpoint


def test_host_and_port_stay_as_they_are() -> None:
    with ExitStack() as kept:
        assert target_of("10.0.0.1:2379", kept) == "10.0.0.1:2379"


def test_a_short_path_is_quoted_as_grpc_reads_it() -> None:
    with ExitStack() as kept:
        assert target_of(unix_endpoint("/run/a b%/é?#"), kept) == "unix:/run/a%20b%25/%C3%A9%3F%23"


def test_a_long_path_is_reached_through_a_descriptor_that_is_closed_in_the_end(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * MAX_PATH)
    deep.mkdir()
    with ExitStack() as kept:
        target = target_of(unix_endpoint(str(deep / "etcd.sock:1")), kept)
        path = Path(target.removeprefix("unix:"))
        assert len(str(path)) < MAX_PATH
        assert path.parent.samefile(deep)
    assert os.path.realpath(path.parent) != os.path.realpath(deep)


def test_a_long_path_that_is_not_there(tmp_path: Path) -> None:
    with ExitStack() as kept, pytest.raises(FileNotFoundError):
        target_of(unix_endpoint(str(tmp_path / ("d" * MAX_PATH) / "etcd.sock:1")), kept)
