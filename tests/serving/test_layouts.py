"""PyTorch's tensors along several axes, put and read by upstream's class and by ours: the same keys, bytes and tensors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.test_layouts import told


@pytest.mark.timeout(600)
def test_what_is_put_and_read_is_the_same(serving_python: Path) -> None:
    theirs, put = told("mooncake.store", serving_python)
    ours, own = told("p2pstore.kv.client.compat", serving_python)
    assert own == put
    assert ours == theirs
    assert theirs["read"][""]["all of its shards"][0] == [4, 6, 8]
