"""Few sends at once, peers in turn, slow ones beside the others, and no slot is ever lost."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from engine.serving.upload_slots import FIRST_PATIENCE_SECONDS, MIN_PATIENCE, PATIENCE, UploadQueue

STEPS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["ask", "done", "leave", "tick"]),
        st.sampled_from([0.0, 0.1, 1.0, 10.0]),
    ),
    max_size=60,
)


def test_peers_take_turns() -> None:
    queue: UploadQueue[str] = UploadQueue(1)
    assert queue.ask("a", "a1", 0.0) == ["a1"]
    for request in ("a2", "a3", "b1", "b2", "c1"):
        assert queue.ask(request[0], request, 0.0) == []
    order = ["a1"]
    while more := queue.done(order[-1], 0.1 * len(order)):
        order += more
    assert order == ["a1", "a2", "b1", "c1", "a3", "b2"]
    assert queue.busy == 0


def test_a_slow_send_goes_on_without_its_slot() -> None:
    queue: UploadQueue[str] = UploadQueue(2)
    queue.ask("a", "quick", 0.0)
    queue.ask("b", "slow", 0.0)
    assert queue.done("quick", 1.0) == []
    assert queue.ask("c", "c1", 1.0) == ["c1"]
    assert queue.ask("d", "d1", PATIENCE) == []
    assert queue.ask("e", "e1", PATIENCE + 0.1) == ["d1"]
    assert queue.done("slow", PATIENCE + 0.2) == []
    assert queue.busy == 2
    assert queue.done("d1", PATIENCE + 0.3) == ["e1"]


def test_slow_sends_make_room_though_nothing_but_time_passes() -> None:
    """D9: eight slow receivers held a healthy one until somebody else asked for something."""
    queue: UploadQueue[str] = UploadQueue()
    queue.ask("quick", "q", 0.0)
    queue.done("q", 0.5)
    for number in range(queue.slots):
        assert queue.ask(f"peer {number}", f"slow {number}", 1.0) == [f"slow {number}"]
    assert queue.due == math.inf, "nobody waits"
    assert queue.ask("healthy", "h", 1.1) == []
    due = queue.due
    assert 1.0 + PATIENCE * 0.5 < due < 1.0 + PATIENCE * 0.5 + 0.001
    assert queue.tick(1.0 + PATIENCE * 0.5) == []
    assert queue.tick(due) == ["h"]
    assert queue.due == math.inf


def test_slow_sends_make_room_before_any_has_ended() -> None:
    """D9: with no send over yet, none counted as slow, whatever it took."""
    queue: UploadQueue[str] = UploadQueue(2)
    queue.ask("a", "a", 0.0)
    queue.ask("b", "b", 1.0)
    queue.ask("healthy", "h", 2.0)
    assert queue.tick(FIRST_PATIENCE_SECONDS) == []
    assert queue.tick(queue.due) == ["h"]


def test_one_peer_leaves_half_of_the_slots_to_others() -> None:
    queue: UploadQueue[str] = UploadQueue(4)
    assert queue.ask("b", "b0", 0.0) == ["b0"]
    assert [queue.ask("a", f"a{n}", 0.0) for n in range(4)] == [["a0"], ["a1"], [], []]
    assert queue.ask("b", "b1", 0.0) == ["b1"]
    assert queue.done("a1", 0.1) == ["a2"]


def test_one_that_is_alone_has_all_slots_and_who_comes_finds_half_of_them_free() -> None:
    queue: UploadQueue[str] = UploadQueue(4)
    assert [queue.ask("a", f"a{n}", 0.0) for n in range(6)] == [["a0"], ["a1"], ["a2"], ["a3"], [], []]
    assert queue.busy == 2
    assert [queue.ask("b", f"b{n}", 0.0) for n in range(3)] == [["b0"], ["b1"], []]
    assert queue.busy == 4
    assert [queue.done(f"a{n}", 0.1) for n in range(2)] == [[], []], "what was lent comes back first"
    assert queue.done("a2", 0.1) == ["a4"]
    assert queue.done("b0", 0.1) == ["b2"]
    assert [queue.done(request, 0.2) for request in ("b1", "b2")] == [[], ["a5"]], "alone again"


def test_as_many_slow_sends_as_slots_and_no_more_go_on_beside_them() -> None:
    queue: UploadQueue[int] = UploadQueue(2)
    queue.ask("a", 0, 0.0)
    queue.done(0, MIN_PATIENCE / 10)
    now, begun = 1.0, []
    for number in range(1, 9):
        begun += queue.ask(f"peer {number}", number, now)
        now += 10.0
    assert begun == [1, 2, 3, 4]


@given(st.integers(1, 4), STEPS)
def test_slots_are_neither_lost_nor_exceeded(slots: int, story: list[tuple[str, str, float]]) -> None:
    queue: UploadQueue[int] = UploadQueue(slots)
    running: list[int] = []
    waiting: list[tuple[str, int]] = []
    whose: dict[int, str] = {}
    now = 0.0
    for number, (peer, what, seconds) in enumerate(story):
        now += seconds
        begun: list[int] = []
        if what == "ask":
            waiting.append((peer, number))
            whose[number] = peer
            begun = queue.ask(peer, number, now)
        elif what == "done" and running:
            begun = queue.done(running.pop(number % len(running)), now)
        elif what == "tick":
            now = max(now, min(queue.due, now + 100.0))
            begun = queue.tick(now)
            assert queue.due > now, "or the caller would call again and again"
        elif what == "leave" and waiting:
            first = waiting.pop(0)
            assert queue.give_up(*first)
            assert not queue.give_up(*first)
        running += begun
        waiting = [w for w in waiting if w[1] not in begun]
        assert queue.busy <= slots
        assert queue.busy <= len(running) <= 2 * slots + slots - max(1, slots // 2)
        free = [w for w in waiting if sum(whose[r] == w[0] for r in queue._running) < max(1, slots // 2)]
        assert queue.busy == slots or not free, "nobody waits beside a free slot, but who has half of them"
        peers = {whose[r] for r in queue._running} | {peer for peer, _ in waiting}
        assert not waiting or len(peers) > 1 or len(queue._running) == slots, "who is alone has all"
    while running:
        now += 0.1
        running += queue.done(running.pop(0), now)
    assert queue.busy == 0


def test_how_many_of_a_peer_wait() -> None:
    queue: UploadQueue[str] = UploadQueue(2)
    assert queue.waiting("a") == 0
    for request in ("b1", "a1", "a2", "a3", "b2"):
        queue.ask(request[0], request, 0.0)
    assert (queue.waiting("a"), queue.waiting("b")) == (2, 1)
    queue.give_up("a", "a3")
    assert queue.waiting("a") == 1
