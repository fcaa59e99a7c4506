"""Codes of the pooled store's master: numbers as on the wire, words for people."""

from __future__ import annotations

import pytest

from engine.rpc.codes import Code


@pytest.mark.parametrize(
    ("code", "number"),
    [
        (Code.OK, 0), (Code.INTERNAL, -1), (Code.BUFFER_OVERFLOW, -10), (Code.NO_SEGMENT, -101),
        (Code.SEGMENT_EXISTS, -102), (Code.CLIENT_UNKNOWN, -103), (Code.NO_SPACE, -200), (Code.BAD_VERSION, -300),
        (Code.BAD_KEY, -400), (Code.BAD_PARAMS, -600), (Code.ILLEGAL_CLIENT, -601), (Code.NOT_READY, -703),
        (Code.NOT_FOUND, -704), (Code.EXISTS, -705), (Code.LEASED, -706), (Code.LEASE_EXPIRED, -707),
        (Code.REPLICA_EXISTS, -711), (Code.BUSY, -714), (Code.TRANSFER_FAILED, -800), (Code.CHECKSUM, -801),
        (Code.RPC_FAILED, -900), (Code.RPC_TIMEOUT, -901), (Code.NO_TASK, -1400), (Code.QUOTA, -1700),
    ],
)  # fmt: skip
def test_numbers_are_upstreams(code: Code, number: int) -> None:
    assert code == number
    assert Code.of(number) is code


def test_a_number_that_nobody_knows_is_an_internal_error() -> None:
    assert Code.of(-12345) is Code.INTERNAL
    assert Code.of(7) is Code.INTERNAL


@pytest.mark.parametrize("code", list(Code))
def test_each_code_has_a_sentence_of_its_own(code: Code) -> None:
    assert code.sentence == code.sentence.strip(" .")
    assert code.sentence not in {other.sentence for other in Code if other is not code}
