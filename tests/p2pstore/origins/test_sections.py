"""How files of origins are cut."""

from __future__ import annotations

import pytest

from p2pstore.objects.manifest import choose_chunk_size
from p2pstore.objects.manifest_reader import MAX_OBJECT_BYTES
from p2pstore.objects.names import is_object_name
from p2pstore.origins.sections import MAX_SECTION_BYTES, MAX_SECTIONS, MIN_SECTION_BYTES, order, plan, revision
from p2pstore.origins.source import OriginFile

MIB = 1 << 20


def file(size: int, **given: object) -> OriginFile:
    return OriginFile(**{"path": "", "place": "https://h/x", "size": size, "version": '"1"', **given})  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 16 * MIB, 16 * MIB + 1, 5 << 30, 1 << 40, MAX_OBJECT_BYTES])
def test_sections_are_the_file_and_have_whole_chunks(size: int) -> None:
    way = plan(file(size))
    assert way.sections[0].begin == 0
    assert way.sections[-1].end == size
    assert way.cut == (size > MIN_SECTION_BYTES)
    assert way.chunk_size == choose_chunk_size(size)
    for one, following in zip(way.sections, way.sections[1:], strict=False):
        assert one.end == following.begin
        assert (one.end - one.begin) % way.chunk_size == 0
        assert one.end - one.begin <= MAX_SECTION_BYTES
    assert len(way.sections) <= max(MAX_SECTIONS, size // MAX_SECTION_BYTES)
    assert all(is_object_name(section.name) and section.name.startswith(way.above) for section in way.sections)
    assert len({section.name for section in way.sections}) == len(way.sections)
    assert way.whole.startswith(way.above)


def test_names_are_those_of_the_place_and_the_version() -> None:
    one = plan(file(5))
    assert plan(file(5)) == one
    assert plan(file(6)).whole != one.whole
    assert plan(file(5, version='"2"')).whole != one.whole
    assert plan(file(5, version='"2"')).above == one.above
    assert plan(file(5, place="https://h/y")).above != one.above


def test_what_has_a_name_by_content_is_called_so_wherever_it_is() -> None:
    way = plan(file(100 * MIB, name="hf/blobs/0"))
    assert way.whole == "hf/blobs/0"
    assert way == plan(file(100 * MIB, name="hf/blobs/0", place="elsewhere"))
    assert way.sections[0].name != plan(file(100 * MIB, name="hf/blobs/1")).sections[0].name


def test_what_gives_out_no_ranges_is_read_at_once() -> None:
    way = plan(file(1 << 30, ranges=False))
    assert [tuple(section) for section in way.sections] == [(way.whole, 0, 1 << 30)]


def test_nodes_begin_at_different_places() -> None:
    sections = plan(file(100 * 16 * MIB)).sections
    firsts = {order(f"node{number}", sections)[0].begin for number in range(8)}
    assert len(firsts) > 4
    assert sorted(order("x", sections)) == sorted(sections)


def test_a_revision_is_that_of_all_files() -> None:
    one, other = file(1, path="a"), file(1, path="b")
    assert revision([one, other]) == revision([other, one]) != revision([one])
