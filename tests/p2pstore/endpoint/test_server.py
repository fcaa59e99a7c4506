"""The interface over HTTP, as the released huggingface_hub, curl and strangers meet it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from engine.net import sockets
from p2pstore.endpoint import server as module
from p2pstore.endpoint.server import HubServer
from p2pstore.hub.hub import Hub
from p2pstore.hub.repos import Repos
from p2pstore.node import Node
from p2pstore.origins.gathering import Gathering
from tests.p2pstore.nodes import FILES, Start, register, root, start

__all__ = ["root", "start"]

WAIT = 60.0
NAME = "org/name"
Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves the interface of a node; its URL."""
    async with AsyncExitStack() as stack:

        async def server(node: Node, token_file: Path | None = None) -> str:
            hub = Hub(node.parts, node.supervisor)
            stack.push_async_callback(hub.close)
            made = HubServer(Gathering(hub), token_file)
            stack.push_async_callback(made.close)
            await made.start(sockets.listen("127.0.0.1", 0))
            return f"http://{made.address}"

        yield server


@pytest.fixture
async def endpoint(start: Start, root: Path, serve: Serve) -> str:
    """Of a node that has nothing, beside one that has the object."""
    one, other = await start("one"), await start("other")
    await register(one, root, NAME)
    return await serve(other)


async def called(work: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return await asyncio.wait_for(asyncio.to_thread(functools.partial(work, *args, **options)), WAIT)


async def ask(url: str, method: str = "GET", **options: Any) -> tuple[int, Any, bytes]:
    async with aiohttp.ClientSession() as session, session.request(method, url, **options) as answer:
        return answer.status, answer.headers, await answer.read()


def files_of(directory: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    return {path: data for path, data in found.items() if not path.startswith(".cache")}


async def test_a_snapshot(endpoint: str, tmp_path: Path) -> None:
    got = await called(huggingface_hub.snapshot_download, NAME, endpoint=endpoint, cache_dir=tmp_path / "cache")
    assert files_of(Path(got)) == FILES
    again = await called(huggingface_hub.snapshot_download, NAME, endpoint=endpoint, cache_dir=tmp_path / "cache")
    assert again == got


async def test_one_file_of_a_commit(endpoint: str, tmp_path: Path) -> None:
    commit = (await called(huggingface_hub.HfApi(endpoint).model_info, NAME)).sha
    fetch = functools.partial(huggingface_hub.hf_hub_download, NAME, endpoint=endpoint, cache_dir=tmp_path)
    got = Path(await called(fetch, "model 1/é", revision=commit))
    assert files_of(got.parent) == {"é": FILES["model 1/é"]}


async def test_the_files_checksums_match(endpoint: str, tmp_path: Path) -> None:
    await called(huggingface_hub.snapshot_download, NAME, endpoint=endpoint, cache_dir=tmp_path)
    found = await called(huggingface_hub.HfApi(endpoint).verify_repo_checksums, NAME, cache_dir=str(tmp_path))
    assert not found.mismatches
    assert found.checked_count == len(FILES)


async def test_what_is_not_there_is_told_in_the_clients_terms(endpoint: str, tmp_path: Path) -> None:
    fetch = functools.partial(huggingface_hub.hf_hub_download, endpoint=endpoint, cache_dir=tmp_path)
    with pytest.raises(EntryNotFoundError, match="has no file"):
        await called(fetch, NAME, "model.safetensors")
    with pytest.raises(RevisionNotFoundError):
        await called(fetch, NAME, "z", revision="v1")
    with pytest.raises(RepositoryNotFoundError):
        await called(fetch, "org/none", "z")
    with pytest.raises(RepositoryNotFoundError):
        await called(huggingface_hub.HfApi(endpoint).model_info, "org/none")


async def test_a_data_set_is_an_object_below_datasets(start: Start, root: Path, serve: Serve, tmp_path: Path) -> None:
    one = await start("one")
    await register(one, root, "datasets/org/d")
    endpoint = await serve(one)
    got = await called(
        huggingface_hub.snapshot_download, "org/d", repo_type="dataset", endpoint=endpoint, cache_dir=tmp_path
    )
    assert files_of(Path(got)) == FILES


async def test_the_file_system_of_the_hub(endpoint: str) -> None:
    """What pandas and datasets read through: a listing, and ranges."""

    def read() -> tuple[list[str], bytes]:
        fs = huggingface_hub.HfFileSystem(endpoint=endpoint, use_listings_cache=False)
        with fs.open(f"{NAME}/model 1/é", block_size=1 << 20) as stream:
            stream.seek(100)
            return sorted(fs.find(NAME)), stream.read(50)

    found, data = await called(read)
    assert found == sorted(f"{NAME}/{path}" for path in FILES)
    assert data == FILES["model 1/é"][100:150]


@pytest.mark.parametrize(
    ("asked", "status", "begin", "end"),
    [
        ("bytes=5-9", 206, 5, 10),
        ("bytes=-3", 206, -3, None),
        ("bytes=1048570-1048580", 206, 1048570, 1048581),
        ("bytes=100-", 206, 100, None),
        ("bytes=0-99999999999", 206, 0, None),
        ("bytes=9-5", 200, 0, None),
        ("lines=1-2", 200, 0, None),
        ("bytes=0-1,5-6", 200, 0, None),
        ("bytes=3145729-", 416, 0, 0),
    ],
)
async def test_ranges(endpoint: str, asked: str, status: int, begin: int, end: int | None) -> None:
    data = FILES["model 1/é"]
    url = f"{endpoint}/{NAME}/resolve/main/model%201/%C3%A9"
    found, headers, body = await ask(url, headers={"Range": asked})
    assert (found, body) == (status, data[begin:end])
    if status == 206:
        first = begin % len(data)
        assert headers["Content-Range"] == f"bytes {first}-{first + len(body) - 1}/{len(data)}"
    if status == 416:
        assert headers["Content-Range"] == f"bytes */{len(data)}"


async def test_a_head_has_what_a_get_has(endpoint: str) -> None:
    url = f"{endpoint}/{NAME}/resolve/main/z"
    _, of_get, body = await ask(url)
    status, of_head, nothing = await ask(url, "HEAD")
    assert (status, nothing) == (200, b"")
    names = ("ETag", "X-Repo-Commit", "Content-Length", "Accept-Ranges")
    assert [of_head[name] for name in names] == [of_get[name] for name in names]
    assert int(of_head["Content-Length"]) == len(body)
    assert "Server" not in of_get


async def test_it_is_for_reading(endpoint: str) -> None:
    for method in ("POST", "PUT", "DELETE"):
        status, _, _ = await ask(f"{endpoint}/{NAME}/resolve/main/z", method)
        assert status == 405
    status, _, _ = await ask(f"{endpoint}/api/repos/create", "POST", json={"name": "x"})
    assert status == 404
    status, _, _ = await ask(f"{endpoint}/api/whoami-v2")
    assert status == 404


async def test_paths_are_those_of_the_object_alone(endpoint: str) -> None:
    for path in ("..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", "model%201", ""):
        status, headers, _ = await ask(f"{endpoint}/{NAME}/resolve/main/{path}")
        assert status == 404
        assert path == "" or headers["X-Error-Code"] == "EntryNotFound"


async def test_some_paths_of_the_tree(endpoint: str) -> None:
    api = huggingface_hub.HfApi(endpoint)
    (found,) = await called(api.get_paths_info, NAME, ["z", "none"])
    assert (found.path, found.size) == ("z", len(FILES["z"]))
    refs = await called(api.list_repo_refs, NAME)
    assert [branch.name for branch in refs.branches] == ["main"]


async def test_what_does_not_come_soon_is_never_a_503(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client obeys 429 and its Retry-After, and earlier releases give up at a GET's 503."""

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(module.Reading, "first", never)
    status, headers, _ = await ask(f"{endpoint}/{NAME}/resolve/main/z")
    assert (status, headers["Retry-After"]) == (429, str(module.AGAIN_SECONDS))
    monkeypatch.setattr(Repos, "find", never)
    status, headers, _ = await ask(f"{endpoint}/api/models/{NAME}")
    assert (status, headers["Retry-After"]) == (429, str(module.AGAIN_SECONDS))


async def test_a_client_that_is_told_to_come_again_does(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0)
    monkeypatch.setattr(module, "MAX_READERS", 0)
    asked = []
    refuse = module._refused

    def refused(*args: Any) -> Any:
        asked.append(args)
        if len(asked) == 2:
            monkeypatch.setattr(module, "MAX_READERS", 8)
        return refuse(*args)

    monkeypatch.setattr(module, "_refused", refused)
    got = await called(huggingface_hub.hf_hub_download, NAME, "z", endpoint=endpoint, cache_dir=tmp_path)
    assert files_of(Path(got).parent)["z"] == FILES["z"]
    assert len(asked) == 2


async def test_a_file_that_breaks_does_not_look_whole(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.errors import SourceChanged

    async def breaks(self: Any, number: int) -> memoryview:
        if number > self._chunks.start:
            raise SourceChanged(path="x", detail="gone")
        await self._copy.want([number])
        await self._copy.arrival(number)
        return await self._copy.read(self._copy.manifest.chunk(number))

    monkeypatch.setattr(module.Reading, "_read", breaks)
    with pytest.raises(aiohttp.ClientError):
        await ask(f"{endpoint}/{NAME}/resolve/main/model%201/%C3%A9")


async def test_a_client_that_leaves_costs_no_reader(
    endpoint: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_READERS", 1)
    url = f"{endpoint}/{NAME}/resolve/main/model%201/%C3%A9"
    for _ in range(3):
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert answer.status in {200, 429}
            await answer.content.read(10)

    async def until() -> None:
        while (await ask(url))[0] != 200:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.02)

    await asyncio.wait_for(until(), WAIT)


async def test_another_user_reads_nothing(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "uid_of", lambda *_: 12345)
    for path in (f"/{NAME}/resolve/main/z", f"/api/models/{NAME}", "/"):
        status, headers, body = await ask(endpoint + path)
        assert status == 403
        assert "another user" in headers["X-Error-Message"]
        assert FILES["z"][:10] not in body
    monkeypatch.setattr(module, "uid_of", lambda *_: None)
    assert (await ask(f"{endpoint}/api/models/{NAME}"))[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:7400"},
        {"Host": "169.254.169.254"},
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
    ids=str,
)
async def test_a_page_of_the_web_reads_nothing(endpoint: str, headers: dict[str, str]) -> None:
    """A browser of this very user's shows it, and its host's name may have come to mean loopback."""
    for method in ("GET", "HEAD", "POST"):
        status, told, body = await ask(f"{endpoint}/{NAME}/resolve/main/z", method, headers=headers)
        assert status == 403
        assert "this mooncake agent is not" in told["X-Error-Message"]
        assert "Access-Control-Allow-Origin" not in told
        assert FILES["z"][:10] not in body
    port = endpoint.rpartition(":")[2]
    for good in ({"Host": f"localhost:{port}"}, {"Sec-Fetch-Site": "none"}):
        assert (await ask(f"{endpoint}/{NAME}/resolve/main/z", headers=good))[2] == FILES["z"]


async def test_with_a_token_only_who_shows_it_reads(start: Start, root: Path, serve: Serve, tmp_path: Path) -> None:
    one = await start("one")
    await register(one, root, NAME)
    file = tmp_path / "token"
    file.write_text("hf_a_token_of_ours\n")
    endpoint = await serve(one, file)
    info = huggingface_hub.HfApi(endpoint).model_info
    assert (await called(info, NAME, token="hf_a_token_of_ours")).id == NAME
    others = {"Host": "node7.cluster:7400", "Authorization": "Bearer hf_a_token_of_ours"}
    assert (await ask(f"{endpoint}/api/models/{NAME}", headers=others))[0] == 200, "whoever shows it, by any name"
    for wrong in ("hf_another_token_xx", False):
        with pytest.raises(HfHubHTTPError) as error:
            await called(info, NAME, token=wrong)
        assert error.value.response.status_code == 403
