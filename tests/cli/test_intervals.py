from __future__ import annotations

from mooncake_cli.intervals import ticks


def test_so_many_and_for_ever() -> None:
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        return len(waited) < 6

    assert list(ticks(2.0, 3, wait)) == [0, 1, 2]
    assert list(ticks(0.5, None, wait)) == [0, 1]
    assert waited == [2.0] * 3 + [0.5] * 3
