"""Calls whose work grows with the number of values: done in steps, so that others have their turn between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from engine.rpc import framing
from engine.rpc.compiled import Codec
from p2pstore.kv.pool.walks import Steps

MAX_LONG = 64
"""Such calls under way, of all connections together; the next is refused."""

PIECE = 1000
"""Values of an answer that are written in one step: some 2 ms."""

LONG = frozenset({"GetReplicaListByRegex", "RemoveByRegex", "RemoveAll"})
"""Their names."""


class LongCall(NamedTuple):
    """One of them: the work, of which the frame of the answer comes, in pieces, and where that goes."""

    steps: Steps[list[bytes]]
    answer: Callable[[list[bytes]], None]
    refusal: bytes
    """What is answered if it fails."""


class LongCalls:
    """All of them, each of which has a step in turn."""

    def __init__(self, soon: Callable[[Callable[[], None]], object], failed: Callable[[Exception], None]) -> None:
        """``soon`` calls back after everybody else had a turn; ``failed`` is told of defects of ours."""
        self._soon = soon
        self._failed = failed
        self._calls: deque[LongCall] = deque()
        self._closed = False

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def full(self) -> bool:
        """Whether no more are taken."""
        return len(self._calls) >= MAX_LONG

    def begin(self, call: LongCall) -> None:
        """Carry one out, the first step of it at once."""
        if not self._closed and self._goes_on(call):
            self._calls.append(call)
            if len(self._calls) == 1:
                self._soon(self._step)

    def close(self) -> None:
        """Leave all where they are: who asked is not answered, and what they changed so far stays."""
        self._closed = True
        while self._calls:
            self._calls.popleft().steps.close()

    def _step(self) -> None:
        if not self._calls:  # closed meanwhile
            return
        call = self._calls.popleft()
        if self._goes_on(call):
            self._calls.append(call)
        if self._calls:
            self._soon(self._step)

    def _goes_on(self, call: LongCall) -> bool:
        """Whether a call goes on after one step more; if not it is answered."""
        try:
            next(call.steps)
        except StopIteration as end:
            call.answer(end.value)
        except Exception as error:  # noqa: BLE001 - a defect of ours is one call's, and not the others' end
            self._failed(error)
            call.answer([call.refusal])
        else:
            return True
        return False


def answer_in_steps(sequence: int, codec: Codec, result: Any) -> Steps[list[bytes]]:
    """The frame of an answer, a long one piece by piece: to join them would take as long as to write them."""
    if not isinstance(result, dict) or len(result) <= PIECE:
        return [framing.answer(sequence, codec.write(result))]
    parts = []
    for part in codec.in_pieces(result, PIECE):
        parts.append(part)
        yield
    return [framing.answer_head(sequence, sum(map(len, parts))), *parts]
