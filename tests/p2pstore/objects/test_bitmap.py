"""A bitmap is a set of small numbers."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from p2pstore.objects.bitmap import Bitmap

SIZES = st.integers(min_value=0, max_value=70)


class AgainstASet(RuleBasedStateMachine):
    """Whatever is done to both, a bitmap says the same as a set."""

    @initialize(size=SIZES, full=st.booleans())
    def begin(self, size: int, full: bool) -> None:
        self.size = size
        self.bitmap = Bitmap(size, full=full)
        self.model = set(range(size)) if full else set()

    @rule(data=st.data())
    def add(self, data: st.DataObject) -> None:
        if self.size:
            index = data.draw(st.integers(0, self.size - 1))
            assert self.bitmap.add(index) == (index not in self.model)
            self.model.add(index)

    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, self.size))
        run = range(start, data.draw(st.integers(start, self.size)))
        self.bitmap.update(run)
        self.model.update(run)

    @rule(data=st.data())
    def has_all(self, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, self.size))
        run = range(start, data.draw(st.integers(start, self.size)))
        assert self.bitmap.has_all(run) == self.model.issuperset(run)

    @rule()
    def travel(self) -> None:
        self.bitmap = Bitmap.from_text(self.bitmap.to_text(), self.size)

    @invariant()
    def same(self) -> None:
        assert list(self.bitmap) == sorted(self.model)
        assert list(self.bitmap.missing()) == sorted(set(range(self.size)) - self.model)
        assert [i in self.bitmap for i in range(self.size)] == [i in self.model for i in range(self.size)]
        assert len(self.bitmap) == self.size
        assert self.bitmap.count == len(self.model)
        assert self.bitmap.full == (len(self.model) == self.size)


TestAgainstASet = AgainstASet.TestCase


def test_packing_is_eight_to_a_byte_the_first_in_the_lowest_bit() -> None:
    bitmap = Bitmap(10)
    bitmap.update([0, 3, 9])
    assert base64.b64decode(bitmap.to_text()) == bytes([0b1001, 0b10])


@given(st.text(max_size=20) | st.binary(max_size=12).map(lambda b: base64.b64encode(b).decode()), SIZES)
def test_any_text_is_that_bitmap_or_a_value_error(text: str, size: int) -> None:
    with contextlib.suppress(ValueError):
        found = Bitmap.from_text(text, size)
        assert len(found) == size
        assert list(Bitmap.from_text(found.to_text(), size)) == list(found)


@pytest.mark.parametrize("text", ["", "AA", "AAAA", "AA==AA==", "é", "AA =", base64.b64encode(b"\0\4").decode()])
def test_what_is_no_bitmap_of_ten(text: str) -> None:
    with pytest.raises(ValueError, match=r"bitmap|base64|ASCII"):
        Bitmap.from_text(text, 10)
