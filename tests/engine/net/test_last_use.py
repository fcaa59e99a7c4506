"""The last one gives back, once."""

from __future__ import annotations

import threading

from engine.net.last_use import LastUse


def test_the_last_one_gives_back() -> None:
    given: list[threading.Thread] = []
    use = LastUse(lambda: given.append(threading.current_thread()))
    use.take()
    use.let_go()
    assert not given
    other = threading.Thread(target=use.let_go)
    other.start()
    other.join()
    assert given == [other]
