"""A process that is told to end, perhaps twice, cleans up once and to the end."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from engine import signals

WAIT = 60.0

PROGRAM = """
import signal, sys, threading
from engine.signals import cleaned_up

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup

with cleaned_up():
    try:
        print("begun", flush=True)
        threading.Event().wait()
    finally:
        print("cleaning", flush=True)
        sys.stdin.read(1)
        print("cleaned", flush=True)
"""


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_second_signal_does_not_break_off_what_cleans_up(first: signal.Signals, second: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == "begun\n"
        program.send_signal(first)
        assert program.stdout.readline() == "cleaning\n"
        program.send_signal(second)
        out, err = program.communicate("x", timeout=WAIT)
    assert out == "cleaned\n"
    if first == signal.SIGINT:
        assert (program.returncode, err.splitlines()[-1]) == (-signal.SIGINT, "KeyboardInterrupt")
    else:
        assert (program.returncode, err) == (128 + first, "")


def test_handlers_are_as_before_when_the_block_has_ended() -> None:
    before = [signal.getsignal(number) for number in signals.ending()]
    with signals.cleaned_up():
        assert [signal.getsignal(number) for number in signals.ending()] != before
    assert [signal.getsignal(number) for number in signals.ending()] == before


def test_what_was_started_to_outlive_its_terminal_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in signals.ending()
        with signals.cleaned_up():
            signal.raise_signal(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert signal.SIGHUP in signals.ending()
    finally:
        signal.signal(signal.SIGHUP, before)
