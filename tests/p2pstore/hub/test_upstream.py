"""The client of the hub, against a stand-in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from p2pstore.errors import MooncakeError, OriginDiffers, OriginUnavailable, OriginUnsuited
from p2pstore.hub import upstream as module
from p2pstore.hub.routes import Route
from p2pstore.hub.upstream import Upstream, UpstreamRefused
from tests.p2pstore.hub.stand_in import StandIn
from tests.p2pstore.samples import MIB, content

FILES = {"config.json": b"{}", "sub/m é.safetensors": content(2 * MIB + 3), "empty": b""}


@pytest.fixture
def hub() -> Iterator[StandIn]:
    made = StandIn()
    made.repos["org/n"] = dict(FILES)
    yield made
    made.close()


@pytest.fixture
async def upstream(hub: StandIn) -> AsyncIterator[Upstream]:
    made = Upstream(hub.url + "/")
    yield made
    await made.close()


async def read(upstream: Upstream, path: str, commit: str, begin: int = 0) -> bytes:
    route = Route("resolve", "models", "org/n", commit, path)
    size = len(FILES[path])
    return b"".join([block async for block in upstream.stream(route, commit, size, begin, size)])


@pytest.mark.parametrize("pages", [0, 1, 2])
async def test_a_listing(hub: StandIn, upstream: Upstream, pages: int) -> None:
    hub.pages = pages
    found = await upstream.listing("models", "org/n", "main")
    assert found.commit == hub.commit("org/n")
    assert list(found.files) == hub.files("org/n")
    assert found.modified == 1.7e9


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("begin", [0, 1])
async def test_a_file(hub: StandIn, upstream: Upstream, path: str, begin: int) -> None:
    assert await read(upstream, path, hub.commit("org/n"), begin) == FILES[path][begin:]


async def test_what_it_refuses(hub: StandIn, upstream: Upstream) -> None:
    for repo, revision, code in (("org/none", "main", "RepoNotFound"), ("org/n", "v9", "RevisionNotFound")):
        with pytest.raises(UpstreamRefused) as refused:
            await upstream.listing("models", repo, revision)
        assert refused.value.code == code
    hub.token = "secret"
    with pytest.raises(UpstreamRefused, match="it is gated"):
        await upstream.listing("models", "org/n", "main")


@pytest.mark.parametrize("path", ["../up", "/root", "a/../../up", "config.json/below"])
async def test_paths_that_lead_out_of_a_repository_are_told_to_nobody(
    hub: StandIn, upstream: Upstream, path: str
) -> None:
    hub.repos["org/n"][path] = b"x"
    with pytest.raises(OriginUnavailable, match="cannot be"):
        await upstream.listing("models", "org/n", "main")


async def test_the_token_of_huggingface_hub_goes_to_the_hub_alone(
    hub: StandIn, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_user")
    hub.token = "hf_of_this_user"
    assert (await upstream.listing("models", "org/n", "main")).commit == hub.commit("org/n")
    assert await read(upstream, "sub/m é.safetensors", hub.commit("org/n")) == FILES["sub/m é.safetensors"]
    shown = {path.startswith("/cdn/"): token for _, path, token in hub.asked}
    assert shown == {False: "Bearer hf_of_this_user", True: ""}


async def test_a_redirects_address_is_told_to_nobody(hub: StandIn, upstream: Upstream) -> None:
    """It may be signed: whoever sees it may read what it leads to."""
    hub.elsewhere = "http://127.0.0.1:1/geheim"
    with pytest.raises(OriginUnavailable) as away:
        await read(upstream, "sub/m é.safetensors", hub.commit("org/n"))
    assert "geheim" not in str(away.value)
    hub.elsewhere = f"{hub.url}/none?geheim"
    with pytest.raises(UpstreamRefused) as refused:
        await read(upstream, "sub/m é.safetensors", hub.commit("org/n"))
    assert "geheim" not in str(refused.value)


async def test_what_breaks_off_or_is_not_well_may_be_another_time(hub: StandIn, upstream: Upstream) -> None:
    commit = hub.commit("org/n")
    hub.break_after["sub/m é.safetensors"] = [MIB]
    with pytest.raises(OriginUnavailable):
        await read(upstream, "sub/m é.safetensors", commit)
    hub.down = True
    with pytest.raises(OriginUnavailable, match="503"):
        await upstream.listing("models", "org/n", "main")
    hub.close()
    with pytest.raises(OriginUnavailable):
        await upstream.listing("models", "org/n", "main")
    hub.__init__()  # type: ignore[misc]


async def test_a_server_without_ranges(hub: StandIn, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    get = upstream._get
    monkeypatch.setattr(upstream, "_get", lambda path, headers=None: get(path))
    assert await read(upstream, "sub/m é.safetensors", hub.commit("org/n"), MIB) == FILES["sub/m é.safetensors"][MIB:]


@pytest.mark.parametrize(
    ("told", "error", "says"),
    [
        ("parts of it", OriginUnsuited, "it does not tell which part of 'sub/m é.safetensors' it sends"),
        (f"bytes 7-{2 * MIB + 2}/{2 * MIB + 3}", OriginUnsuited, "it sends another part of 'sub/m é.safetensors'"),
        (f"bytes {MIB}-{2 * MIB}/99", OriginDiffers, rf"was to have {2 * MIB + 3} bytes, and it sends one of 99"),
    ],
)
async def test_a_server_that_sends_another_part_than_it_was_asked_for(
    hub: StandIn, upstream: Upstream, told: str, error: type[MooncakeError], says: str
) -> None:
    hub.content_range = told
    with pytest.raises(error, match=says):
        await read(upstream, "sub/m é.safetensors", hub.commit("org/n"), MIB)


async def test_without_the_package_nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert module.known_token() is None
