"""Objects of an S3 store, on moto's server."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from p2pstore.errors import (
    OriginChanged,
    OriginDiffers,
    OriginNotFound,
    OriginRefused,
    OriginUnavailable,
    PackageMissing,
)
from p2pstore.objects.selection import Selection
from p2pstore.objects.steps import Steps
from p2pstore.origins import s3 as s3_module
from p2pstore.origins.address import Place, parse_origin
from p2pstore.origins.s3 import S3Source
from tests.p2pstore.nodes import Start, start
from tests.p2pstore.origins.gatherings import WAIT, Make, brought, make, short
from tests.p2pstore.origins.s3_stand_in import ID, SECRET, Moto
from tests.p2pstore.origins.silent import silent_server
from tests.p2pstore.samples import MIB, content, large

__all__ = ["make", "short", "start"]

pytest.importorskip("s3fs", reason="NO S3: s3fs is not installed")
pytest.importorskip("moto", reason="NO S3: moto is not installed")
pytest.importorskip("flask", reason="NO S3: moto's server lacks flask")

BIG_BYTES = 40 * MIB + 5


def big() -> bytes:
    return large(BIG_BYTES)


def tree() -> dict[str, bytes]:
    return {"config.json": b"{}", "sub/m 1+é.bin": large(20 * MIB, 2), "no.gguf": b"x", "empty": b""}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moto]:
    made = Moto(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    try:
        made.put("bucket")
        made.put("bucket/big", big())
        for path, data in tree().items():
            made.put(f"bucket/tree/{path}".replace(" ", "%20").replace("+", "%2B").replace("é", "%C3%A9"), data)
        yield made
    finally:
        made.kill()


async def test_nodes_that_bring_an_object_together_read_it_once(start: Start, make: Make, store: Moto) -> None:
    nodes = [await start(f"node{number}") for number in range(3)]
    found = await asyncio.gather(*(brought(make(node), "s3://bucket/big") for node in nodes))
    assert [place.read_bytes() == big() for place, _ in found] == [True] * 3
    assert store.sent("bucket/big") == BIG_BYTES
    gets = store.gets("bucket/big")
    assert all(each["range"] and each["if_match"] for each in gets)
    assert all(ID in each["authorization"] and SECRET not in each["authorization"] for each in gets)


async def test_a_prefix(start: Start, make: Make, store: Moto) -> None:
    one = make(await start("one"))
    for url in ("s3://bucket/tree", "s3://bucket/tree/"):
        place, _ = await brought(one, url, Selection(exclude=("*.gguf",)))
        got = {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}
        assert got == {path: data for path, data in tree().items() if path != "no.gguf"}
    assert store.sent("bucket/tree/sub/m 1+é.bin") == len(tree()["sub/m 1+é.bin"])
    assert not store.gets("bucket/tree/no.gguf")


async def test_what_a_store_refuses(
    start: Start, make: Make, store: Moto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = make(await start("one"))
    for url in ("s3://bucket/none", "s3://bucket/none/", "s3://none/x"):
        with pytest.raises(OriginNotFound):
            await brought(one, url)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no credentials"))
    with pytest.raises(OriginRefused, match="credentials"):
        await brought(one, "s3://bucket/big")


async def test_an_object_that_changes_meanwhile_is_refused(store: Moto) -> None:
    source = S3Source(Place("s3", "s3://bucket/big"))
    (file,) = await source.files(Selection())
    blocks = source.stream(file, 0, file.size)
    assert await anext(blocks) == big()[: s3_module.BLOCK_BYTES]
    await asyncio.to_thread(store.put, "bucket/big", content(40 * MIB + 5, 3))
    with pytest.raises(OriginChanged, match=file.version):
        await anext(blocks)
    await source.close()


async def test_wrong_bytes(start: Start, make: Make, store: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    right = S3Source._read

    def wrong(self: S3Source, file: object, begin: int, count: int) -> bytes:
        data = bytearray(right(self, file, begin, count))  # type: ignore[arg-type]
        data[0] ^= begin == 0
        return bytes(data)

    monkeypatch.setattr(S3Source, "_read", wrong)
    with pytest.raises(OriginDiffers, match="md5"):
        await brought(make(await start("one")), "s3://bucket/big")


def upload(sizes: Sequence[int]) -> bytes:
    """An object ``bucket/parts`` of parts of these sizes; what it is."""
    import s3fs

    system = s3fs.S3FileSystem(skip_instance_cache=True)
    where = {"Bucket": "bucket", "Key": "parts"}
    begun = {**where, "UploadId": system.call_s3("create_multipart_upload", **where)["UploadId"]}
    data = [content(size, 40 + number) for number, size in enumerate(sizes)]
    done = [
        {"PartNumber": number, "ETag": system.call_s3("upload_part", PartNumber=number, Body=part, **begun)["ETag"]}
        for number, part in enumerate(data, 1)
    ]
    system.call_s3("complete_multipart_upload", MultipartUpload={"Parts": done}, **begun)
    return b"".join(data)


@pytest.mark.parametrize("sizes", [[20 * MIB], [6 * MIB] * 3 + [MIB + 1], [6 * MIB] * 3])
async def test_what_was_uploaded_in_parts_is_compared_with_the_hash_of_those(
    start: Start, make: Make, store: Moto, monkeypatch: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    data = await asyncio.to_thread(upload, sizes)
    right = S3Source._read

    def wrong(self: S3Source, file: object, begin: int, count: int) -> bytes:
        data = bytearray(right(self, file, begin, count))  # type: ignore[arg-type]
        data[0] ^= begin == 0
        return bytes(data)

    monkeypatch.setattr(S3Source, "_read", wrong)
    one = make(await start("one"))
    with pytest.raises(OriginDiffers, match=f"md5 of parts of {sizes[0]} bytes"):
        await brought(one, "s3://bucket/parts")
    monkeypatch.setattr(S3Source, "_read", right)
    place, _ = await brought(one, "s3://bucket/parts")
    assert place.read_bytes() == data


@pytest.mark.parametrize("sizes", [[6 * MIB, 7 * MIB, MIB], [6 * MIB, 7 * MIB, 5 * MIB, 5 * MIB]])
async def test_parts_of_several_sizes_are_no_fault(start: Start, make: Make, store: Moto, sizes: list[int]) -> None:
    """What the first one says of the others may look right, and is not."""
    data = await asyncio.to_thread(upload, sizes)
    place, _ = await brought(make(await start("one")), "s3://bucket/parts")
    assert place.read_bytes() == data


async def test_a_store_that_is_away_is_waited_for(start: Start, make: Make, store: Moto) -> None:
    node = await start("one")
    one = make(node)
    place = parse_origin("s3://bucket/big")
    assert isinstance(place, Place)
    source = S3Source(place)
    (file,) = await source.files(Selection())
    store.away(now=True)
    work = asyncio.create_task(one.have(source, "s3://bucket/big", file, Steps()))
    await asyncio.sleep(2)
    store.away(now=False)
    assert (await asyncio.wait_for(work, WAIT)).read_bytes() == big()


async def test_a_store_that_stays_away(start: Start, make: Make, store: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store.kill()
    one = make(await start("one"))
    try:
        with pytest.raises(OriginUnavailable) as away:
            await brought(one, "s3://bucket/big")
        assert SECRET not in str(away.value)
    finally:
        store.start()


async def test_a_store_that_says_nothing(
    start: Start, make: Make, store: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3_module, "SILENCE_SECONDS", 0.5)
    with silent_server() as where:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{where}")
        with pytest.raises(OriginUnavailable, match="imeout"):
            await brought(make(await start("one")), "s3://bucket/big")


async def test_without_s3fs_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "s3fs":
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PackageMissing, match="s3:// needs the package s3fs") as caught:
        S3Source(Place("s3", "s3://bucket/x"))
    assert "mooncake-cli[origins]" in caught.value.hint
