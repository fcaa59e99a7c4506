"""Few sends at once, peers in turn, and no slot is ever lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.uploads import UploadQueue

STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ask", "done", "leave"])), max_size=60)


def test_peers_take_turns() -> None:
    queue: UploadQueue[str] = UploadQueue(1)
    assert queue.ask("a", "a1")
    for request in ("a2", "a3", "b1", "b2", "c1"):
        assert not queue.ask(request[0], request)
    assert [queue.done() for _ in range(6)] == ["a2", "b1", "c1", "a3", "b2", None]
    assert queue.busy == 0


@given(st.integers(1, 4), STEPS)
def test_slots_are_neither_lost_nor_exceeded(slots: int, story: list[tuple[str, str]]) -> None:
    queue: UploadQueue[int] = UploadQueue(slots)
    running, waiting = 0, []
    for number, (peer, what) in enumerate(story):
        if what == "ask":
            if queue.ask(peer, number):
                running += 1
            else:
                waiting.append((peer, number))
        elif what == "done" and running:
            following = queue.done()
            running -= following is None
            waiting = [w for w in waiting if w[1] != following]
        elif what == "leave" and waiting:
            first = waiting.pop(0)
            assert queue.give_up(*first)
            assert not queue.give_up(*first)
        assert queue.busy == running <= slots
        assert running == slots or not waiting, "nobody waits beside a free slot"
    for _ in range(running + len(waiting)):
        queue.done()
    assert queue.busy == 0
