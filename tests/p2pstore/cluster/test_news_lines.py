"""Lines are news, or the peer's fault, however they are cut into parts."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.cluster.news import Availability, Queued, Shared
from p2pstore.cluster.news_lines import (
    MAX_LINE_BYTES,
    MAX_WHY,
    Lines,
    read_availability,
    read_key,
    read_news,
    read_withdrawal,
)
from p2pstore.errors import PeerWithdrew, RemoteError, RemoteProtocolError
from p2pstore.objects.bitmap import Bitmap
from p2pstore.swarm.gateway import Claim, Rank
from p2pstore.swarm.granter import Grant
from p2pstore.swarm.pace import MAX_LEAD

CHUNKS = 9
FULL = json.dumps({"address": 4096, "bitmap": Bitmap(CHUNKS, full=True).to_text()}).encode()


def first(data: bytes) -> Availability:
    (line,) = Lines("p").read(data + b"\n")
    return read_availability("p", line, CHUNKS)


def later(data: bytes) -> object:
    (line,) = Lines("p").read(data + b"\n")
    return read_news("p", line, CHUNKS)


def test_the_first_line() -> None:
    found = first(FULL[:-1] + b',"listener":"k","shared":true,"grants":1,"key":"' + b"0" * 32 + b'","more":7}')
    assert (found.address, found.have.full, found.key, found.listener) == (4096, True, "0" * 32, "k")
    assert (found.shared, found.grants) == (True, False), "only true is true"
    assert "0" * 32 not in repr(found)


NEWS = {
    b"{}": None,
    b'{"have":[[0,2],[8,1]]}': [0, 1, 8],
    b'{"have":[]}': [],
    b'{"shared":true}': Shared(shared=True),
    b'{"shared":1}': Shared(shared=False),
    b'{"queued":3}': Queued(3),
    b'{"queued":"3"}': None,
    b'{"gateway":[2,3,1,77],"own":true}': Claim(2, 3, Rank.ACTING, 77, own=True),
    b'{"grant":7,"window":3,"lead":0.1}': Grant("", 7, None, 3, 0.1),
    b'{"grant":8,"window":5,"lead":7,"run":[[2,3]]}': Grant("", 8, range(2, 5), 5, MAX_LEAD),
    b'{"since version 2":1}': None,
}


@pytest.mark.parametrize("line", NEWS)
def test_later_lines(line: bytes) -> None:
    assert later(line) == NEWS[line]


def test_a_withdrawal_and_its_reason() -> None:
    assert not read_withdrawal("p", {"have": []})
    assert read_withdrawal("p", {"gone": True})
    assert read_withdrawal("p", {"gone": True, "why": 7})
    with pytest.raises(PeerWithdrew, match="its file has changed"):
        read_withdrawal("p", {"gone": True, "why": "its file has changed"})
    with pytest.raises(PeerWithdrew) as caught:
        read_withdrawal("p", {"gone": True, "why": "x" * 10_000})
    assert str(caught.value).count("x") <= MAX_WHY + 10


@pytest.mark.parametrize("key", [None, 7, "what", "0" * 31])
def test_what_is_no_key(key: object) -> None:
    with pytest.raises(RemoteProtocolError, match="an invalid key"):
        read_key("p", {"key": key})
    assert read_key("p", {}) == ""


FIRST_LINES = [
    b"",
    b"{}",
    b"[]",
    b"garbage",
    b'{"gone":true}',
    b'{"have":[[0,1]]}',
    FULL.replace(b"4096", b"-1"),
    FULL.replace(b"4096", b"18446744073709551616"),
    FULL.replace(b"4096", b'"4096"'),
    FULL.replace(b"4096", b"4096.0"),
    FULL.replace(b"4096", b"true"),
    json.dumps({"address": 1, "bitmap": Bitmap(8, full=True).to_text()}).encode(),
    json.dumps({"address": 1, "bitmap": Bitmap(17).to_text()}).encode(),
    json.dumps({"address": 1, "bitmap": Bitmap(10, full=True).to_text()}).encode(),
    b'{"address":1,"bitmap":"????"}',
    b'{"address":1,"bitmap":7}',
    b'{"address":1,"bitmap":"\xc3\xa9"}',
    b'{"address":1}',
    FULL[:-1] + b',"listener":7}',
    FULL[:-1] + b',"listener":"' + b"x" * 100 + b'"}',
]
LATER_LINES = [
    b'{"have":7}',
    b'{"have":{}}',
    b'{"have":[7]}',
    b'{"have":[[0]]}',
    b'{"have":[[0,1,2]]}',
    b'{"have":[["0",1]]}',
    b'{"have":[[0,1.0]]}',
    b'{"have":[[true,1]]}',
    b'{"have":[[-1,1]]}',
    b'{"have":[[0,-1]]}',
    b'{"have":[[9,1]]}',
    b'{"have":[[0,10]]}',
    b'{"grant":7}',
    b'{"grant":-1,"window":3,"lead":0}',
    b'{"grant":7,"window":0,"lead":0}',
    b'{"grant":7,"window":1000,"lead":0}',
    b'{"grant":7,"window":3,"lead":"0"}',
    b'{"grant":7,"window":3,"lead":0,"run":[[0,1],[2,1]]}',
    b'{"grant":7,"window":3,"lead":0,"run":[[9,1]]}',
    b'{"gateway":7}',
    b'{"gateway":[1,2,3]}',
    b'{"gateway":[0,1,4,2]}',
    b'{"gateway":[0,-1,0,2]}',
    b'{"gateway":[9,1,0,2]}',
    b'{"gateway":[0,1,0,1e3]}',
    b'{"have":[[0,1' + b"0" * 1000 + b"]]}",
    b'{"have":[' + b",".join([b"[0,9]"] * 1000) + b"]}",
    b"null",
    b"",
    b"\xff",
]


@pytest.mark.parametrize("line", FIRST_LINES, ids=range(len(FIRST_LINES)))
def test_what_does_not_begin_with_a_replica(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        first(line)


@pytest.mark.parametrize("line", LATER_LINES, ids=range(len(LATER_LINES)))
def test_what_is_no_news(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        later(line)


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_bytes_are_news_or_the_peers_fault(parts: list[bytes]) -> None:
    lines = Lines("p")
    try:
        for part in parts:
            for line in lines.read(part):
                read_news("p", line, CHUNKS)
    except RemoteError:
        pass


@given(st.lists(st.integers(0, 200), max_size=5))
def test_where_the_parts_end_makes_no_difference(cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in NEWS)
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    lines = Lines("p")
    read = [line for a, b in itertools.pairwise(ends) for line in lines.read(data[a:b])]
    assert [read_news("p", line, CHUNKS) for line in read] == list(NEWS.values())


def test_an_endless_line_is_cut_off() -> None:
    lines = Lines("p")
    assert list(lines.read(b" " * MAX_LINE_BYTES)) == []
    with pytest.raises(RemoteProtocolError, match=f"longer than {MAX_LINE_BYTES} bytes"):
        next(lines.read(b" "))
