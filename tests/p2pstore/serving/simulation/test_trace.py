"""Traces are read as others write them, and what is none is named with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pstore.errors import PathNotFound, StorageError, UsageError
from p2pstore.serving.simulation.trace import Request, best_reuse, read, write

LINE = {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 2353]}


def test_the_published_form_is_read_in_the_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(json.dumps(LINE) + "\n\n" + json.dumps(LINE | {"timestamp": 5, "other": "x"}) + "\n")
    assert read(path) == [Request(0.005, 6955, 52, (46, 47, 2353)), Request(27.482, 6955, 52, (46, 47, 2353))]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    requests = [Request(0.0, 1, 0, ()), Request(1.25, 600, 7, (3, 4))]
    write(tmp_path / "t", requests)
    assert read(tmp_path / "t") == requests
    assert json.loads((tmp_path / "t").read_text().splitlines()[1]) == {
        "timestamp": 1250,
        "input_length": 600,
        "output_length": 7,
        "hash_ids": [3, 4],
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "it is no JSON, from what stands at its end on"),
        ("hello", "it is no JSON, from what stands at character 1 on"),
        ('{"timestamp": 1,}', "it is no JSON, from what stands at character 1"),
        ("[1]", "a request is a JSON object"),
        ('"' + "\udcff", "it is no text in UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ('{"timestamp": ' + "1" * 10_000 + "}", "a number that is too long"),
        (json.dumps(LINE | {"timestamp": "now"}), "timestamp"),
        (json.dumps(LINE | {"timestamp": -1}), "timestamp"),
        (json.dumps(LINE | {"timestamp": float("nan")}), "timestamp"),
        (json.dumps(LINE | {"timestamp": 10**400}), "timestamp"),
        (json.dumps(LINE | {"timestamp": 1e308}), "timestamp"),
        (json.dumps(LINE | {"input_length": 0}), "input_length"),
        (json.dumps(LINE | {"input_length": 10**400}), "input_length"),
        (json.dumps(LINE | {"output_length": 10**400}), "output_length"),
        (json.dumps(LINE | {"input_length": True}), "input_length"),
        (json.dumps(LINE | {"output_length": 1.5}), "output_length"),
        (json.dumps(LINE | {"hash_ids": ["a"]}), "hash_ids"),
        (json.dumps({"timestamp": 1}), "hash_ids"),
    ],
)
def test_what_is_no_request_is_named_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes((json.dumps(LINE) + "\n" + line + "\n").encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match="line 2") as raised:
        read(path)
    assert words in str(raised.value)


def test_no_file_no_requests_and_no_place_to_write(tmp_path: Path) -> None:
    with pytest.raises(PathNotFound):
        read(tmp_path / "none")
    with pytest.raises(StorageError):
        read(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError, match="no requests"):
        read(tmp_path / "empty")
    with pytest.raises(StorageError):
        write(tmp_path / "none" / "x", [])


def test_the_best_reuse_counts_prefixes_alone() -> None:
    requests = [Request(0, 1, 1, (1, 2, 3)), Request(0, 1, 1, (1, 9, 3)), Request(0, 1, 1, (1, 9))]
    assert best_reuse(requests) == 3 / 8
    assert best_reuse([Request(0, 1, 1, ())]) == 0
