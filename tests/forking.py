"""Work in a forked child of the test, and what came of it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import select
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any

WAIT = 60.0
"""Seconds after which a child that says nothing has hung."""


@contextlib.contextmanager
def allowed() -> Any:
    """Forking with threads is what is tested; newer Pythons warn of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def in_child(work: Callable[[], Any]) -> Any:
    """What ``work`` returns in a forked child; an error that it raises there is raised here."""
    read, write = os.pipe()
    with allowed():
        pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            try:
                outcome = (True, work())
            except BaseException as error:
                outcome = (False, error)
            os.write(write, pickle.dumps(outcome))
        os._exit(0)
    os.close(write)
    data = b""
    try:
        until = time.monotonic() + WAIT
        while select.select([read], [], [], max(0.0, until - time.monotonic()))[0]:
            some = os.read(read, 1 << 16)
            if not some:
                break
            data += some
        else:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError("the child hangs")
    finally:
        os.close(read)
        _, status = os.waitpid(pid, 0)
    assert data, f"the child ended with status {status} and said nothing"
    good, outcome = pickle.loads(data)
    if good:
        return outcome
    raise outcome


def context() -> Any:
    """Multiprocessing's ``fork``."""
    return multiprocessing.get_context("fork")
