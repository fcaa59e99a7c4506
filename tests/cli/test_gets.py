"""Sentences about a get."""

from __future__ import annotations

from typing import Any

import pytest

from mooncake_cli.gets import report
from tests.cli.fake_agent import get_result

GOT = "got models/llama: 8.0 MiB by tcp from 2 peers in 2.0 s, 4.0 MiB/s, 2.0 MiB reused\nverified at /data/llama"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({}, f"{GOT}; this node serves it now"),
        ({"seeding": False}, GOT),
        ({"seeding": False, "replaced": "ab" * 32}, f"{GOT}, in place of {'ab' * 6}"),
        ({"seeding": False, "tensors": 1}, GOT.replace("models/llama:", "1 tensor of models/llama:", 1)),
        ({"seeding": False, "files": 3}, GOT.replace("models/llama:", "3 files of models/llama:", 1)),
        ({"seeding": False, "dest": "-"}, GOT.replace("at /data/llama", "on standard output")),
        ({"bytes_pulled": 0, "seeding": False}, "models/llama is complete at /data/llama: nothing had to be pulled"),
        (
            {"bytes_pulled": 0, "seeding": False, "files": 3},
            "3 files of models/llama are complete at /data/llama: nothing had to be pulled",
        ),
        (
            {"bytes_pulled": 0, "seeding": False, "files": 1},
            "1 file of models/llama is complete at /data/llama: nothing had to be pulled",
        ),
        (
            {"seconds": 0.0, "bytes_reused": 0, "seeding": False},
            GOT.partition(" in ")[0] + " in 0.00 s\nverified at /data/llama",
        ),
    ],
)
def test_what_is_said(how: dict[str, Any], said: str) -> None:
    assert report({**get_result(), **how}) == said


def test_of_a_range_nobody_says_that_the_file_is_complete() -> None:
    here = {**get_result(), "files": 1, "bytes_pulled": 0, "seeding": False}
    assert report(here, "5-") == "bytes 5- of models/llama are complete at /data/llama: nothing had to be pulled"
    assert report({**get_result(), "files": 1}, "0-99").startswith("got bytes 0-99 of models/llama: 8.0 MiB by tcp")
