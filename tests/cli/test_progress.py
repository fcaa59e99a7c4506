"""Lines of progress, where there is no terminal; bars are tried on one in test_output.py."""

from __future__ import annotations

from mooncake_cli.progress import LINE_SECONDS, LineProgress

MIB = 1 << 20


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_a_line_every_ten_seconds() -> None:
    clock, lines = Clock(), list[str]()
    progress = LineProgress("pulling", lines.append, clock=clock)
    for second in range(41):
        clock.now = 50.0 + second
        progress.update((10 + second) * MIB, 100 * MIB, 2)
    assert lines == [
        f"pulling: {10 + n}.0 MiB of 100.0 MiB ({10 + n} %), 1.0 MiB/s, {text} left, 2 peers"
        for n, text in ((10, "1 min 20 s"), (20, "1 min 10 s"), (30, "1 min 0 s"), (40, "50 s"))
    ]
    assert LINE_SECONDS == 10


def test_a_new_step_has_its_own_rate_and_name() -> None:
    clock, lines = Clock(), list[str]()
    progress = LineProgress("pulling", lines.append, clock=clock)
    progress.update(0, 100 * MIB)
    clock.now += 10
    progress.update(50 * MIB, 100 * MIB, 1)
    progress.begin("syncing 3 files", "")
    clock.now += 10
    progress.update(0, 0)
    progress.begin("making files", "files")
    clock.now += 10
    progress.update(1234, 0)
    assert lines == [
        "pulling: 50.0 MiB of 100.0 MiB (50 %), 5.0 MiB/s, 10 s left, 1 peer",
        "syncing 3 files: for 10 s",
        "making files: 1,234 files",
    ]


def test_what_stands_still_has_no_time_left() -> None:
    clock, lines = Clock(), list[str]()
    progress = LineProgress("pulling", lines.append, clock=clock)
    progress.update(MIB, 2 * MIB)
    clock.now += 10
    progress.update(MIB, 2 * MIB)
    assert lines == ["pulling: 1.0 MiB of 2.0 MiB (50 %), 0 B/s"]
