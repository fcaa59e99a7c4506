"""A list that is encoded in slices is encoded like one that is not."""

from __future__ import annotations

import json

import pytest

from p2pstore.objects.json_slices import SLICE, json_list, to_json


@pytest.mark.parametrize("count", [0, 1, 2, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE])
def test_a_list_of_any_length(count: int) -> None:
    entries = [{"path": f"é {number}", "b": number, "a": [number]} for number in range(count)]
    data = b"".join(json_list(iter(entries)))
    assert data == to_json(entries)
    assert json.loads(data) == entries
