"""Other weights and other types have other fingerprints; what does not matter does not."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pstore.errors import BadSource, PathNotFound
from p2pstore.integrations.fingerprint import SAMPLE_BYTES, Fingerprint, _places, doubts, of_digest, parse, sampled


def test_it_is_read_as_it_was_written() -> None:
    made = Fingerprint("w0123456789abcdef", "bfloat16+fp8_e4m3", 128, "sha256_cbor", "0")
    assert made.text == "w0123456789abcdef@bfloat16+fp8_e4m3@block128@sha256_cbor-seed0"
    assert parse(made.text) == made
    assert parse(f"{made.text}@cpu-LBHNC@model@tp_rank:0@pcp0") == made
    assert parse(Fingerprint("w1", "float32", 16).text) == Fingerprint("w1", "float32", 16, "sha256", "")
    assert parse("model@tp_rank:0@pcp0@dcp0@pp_rank:0@group:0@ab") is None
    assert parse("") is None


def test_a_digest() -> None:
    assert of_digest("xxh3:00112233445566778899") == "w0011223344556677"
    assert of_digest("00112233445566778899") == "w0011223344556677"


def checkpoint(at: Path, weights: bytes = b"weights" * 1000, config: str = "{}") -> Path:
    at.mkdir()
    (at / "model.safetensors").write_bytes(weights)
    (at / "config.json").write_text(config)
    return at


def test_weights_and_configuration_count_and_nothing_else(tmp_path: Path) -> None:
    first = sampled(checkpoint(tmp_path / "a"))
    again = checkpoint(tmp_path / "b")
    (again / "README.md").write_text("other")
    (again / "original").mkdir()
    assert sampled(again) == first
    assert parse(Fingerprint(first, "float32", 1).text) is not None
    changed = bytearray(b"weights" * 1000)
    changed[3500] ^= 1
    assert sampled(checkpoint(tmp_path / "c", bytes(changed))) != first
    assert sampled(checkpoint(tmp_path / "d", config='{"rope_theta": 2}')) != first
    assert sampled(checkpoint(tmp_path / "e", b"weights" * 1001)) != first
    (again / "model-2.safetensors").write_bytes(b"")
    assert sampled(again) != first


def test_weights_that_are_not_there_are_doubted(tmp_path: Path) -> None:
    made = checkpoint(tmp_path / "a")
    index = made / "model.safetensors.index.json"
    assert doubts(made) == []
    index.write_text('{"weight_map": {"a": "model.safetensors"}}')
    assert doubts(made) == []
    for broken in (
        "",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {"a": 1, "b": "../model-2.bin"}}',
        "[" * 100_000,
    ):
        index.write_text(broken)
        assert doubts(made) == []
    index.write_text('{"weight_map": {"a": "b.safetensors", "c": "d.safetensors", "e": "model.safetensors"}}')
    (doubt,) = doubts(made)
    assert "names 2 files that are not there (b.safetensors and others)" in doubt
    (made / "model.safetensors").unlink()
    (doubt,) = doubts(made)
    assert "has no weights at its top" in doubt
    with pytest.raises(PathNotFound):
        doubts(tmp_path / "none")


def test_links_are_followed(tmp_path: Path) -> None:
    """A hub's snapshot is links to blobs."""
    first = checkpoint(tmp_path / "a")
    other = tmp_path / "b"
    other.mkdir()
    for each in first.iterdir():
        (other / each.name).symlink_to(each)
    assert sampled(other) == sampled(first)


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="neither weights nor a config"):
        sampled(tmp_path)
    with pytest.raises(PathNotFound):
        sampled(tmp_path / "none")


@given(st.integers(0, 1 << 40))
def test_places_are_spread_from_the_beginning_to_the_end(size: int) -> None:
    if size > 1 << 34:
        size >>= 8
    places = list(_places(size))
    assert places == sorted(set(places))
    assert places[0] == 0
    assert places[-1] == max(0, size - SAMPLE_BYTES)
    if size <= SAMPLE_BYTES * 16:
        assert all(b - a <= SAMPLE_BYTES for a, b in itertools.pairwise(places))
