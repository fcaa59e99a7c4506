"""What a source says to a complaint reaches the user, also when it was given up meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from p2pstore.errors import PeerUnreachable
from p2pstore.pull.complaints import SentComplaints

WAIT = 60.0


class Peers:
    """In place of a client: it answers as it is told, when it is told."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.may_answer = asyncio.Event()
        self.asked: list[tuple[str, str, int]] = []

    async def complain(self, control: str, digest: str, chunk: int) -> object:
        self.asked.append((control, digest, chunk))
        await self.may_answer.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def asked_of(answer: object) -> tuple[list[str], Peers, SentComplaints]:
    notes: list[str] = []
    peers = Peers(answer)
    made = SentComplaints(peers, "d", notes.append)  # type: ignore[arg-type]
    made.follow("a", "a:1")
    made.complain("a", 7)
    made.complain("nobody", 7)
    await asyncio.sleep(0)
    made.leave("a")
    await asyncio.sleep(0)
    assert peers.asked == [("a:1", "d", 7)]
    return notes, peers, made


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (True, ["a has read its chunk 7 again: it is wrong there, too, and is served no more"]),
        (False, ["a has read its chunk 7 again: it is right there; something on the way changed it"]),
        (None, []),
        (PeerUnreachable(peer="a:1", detail="it is gone"), []),
        (RuntimeError("a bug"), []),
    ],
)
async def test_the_answer_is_told(answer: object, said: list[str]) -> None:
    notes, peers, made = await asked_of(answer)
    peers.may_answer.set()
    await made.heard(WAIT)
    assert notes == said


async def test_nobody_waits_longer_than_is_said_or_after_the_end() -> None:
    notes, _, made = await asked_of(True)
    await made.heard(0.01)
    await asyncio.wait_for(made.end(), WAIT)
    await asyncio.wait_for(made.heard(WAIT), WAIT)
    assert notes == []
