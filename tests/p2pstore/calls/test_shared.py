"""What ``share=`` means, and which slips are told before anything begins."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from p2pstore.calls import shared
from p2pstore.calls.shared import shared_request
from p2pstore.errors import UsageError
from tests.p2pstore.stores import two_stores

TORCHRUN = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}


@pytest.fixture(autouse=True)
def frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(name: str, device: str, without_gpu: str) -> Any:
        return SimpleNamespace(name=name, device=device, without_gpu=without_gpu)

    monkeypatch.setattr("p2pstore.calls.given.framework_of", made)


def asked(environ: dict[str, str] | None = None, **said: Any) -> Any:
    usual: dict[str, Any] = {
        "share": "host", "environ": TORCHRUN if environ is None else environ, "name": "n", "device": "cpu",
        "layout": "replicate", "include": (), "rank": None, "cut": None, "framework": "torch", "path": "",
        "transport": "auto", "peers": (),
    }  # fmt: skip
    return shared_request(**{**usual, **said})


def test_torchrun_tells_which_gpu_and_whose_slices() -> None:
    request, launch = asked(layout="shard")
    assert request.framework.device == "cuda:1"
    assert (request.ranks.rank, request.ranks.world) == (1, 4)
    assert (launch.rank, launch.size) == (1, 4)


def test_what_is_said_counts() -> None:
    request, _ = asked(device="cuda:0", rank=(9, 16))
    assert request.framework.device == "cuda:0"
    assert (request.ranks.rank, request.ranks.world) == (9, 16)
    request, _ = asked()
    assert request.ranks is None
    assert request.framework.without_gpu == "leave share= out", "for device='cpu' is the rank's GPU here"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"share": "rack"}, "share must be 'host', or empty for a get of its own"),
        ({"share": True}, "share must be 'host'"),
        ({"environ": {}}, "LOCAL_RANK is not set"),
        ({"layout": "half"}, "the layout must be one of replicate, shard"),
        ({"layout": "shard", "rank": (0, 4)}, "the rank is LOCAL_RANK: leave rank= out"),
        ({"framework": "numpy"}, "NumPy's arrays lie in the host's memory: use framework='torch'"),
        ({"device": "mps"}, "share='host' is for GPUs, such as 'cuda:0', and 'mps' is none$"),
        ({"device": 0}, "the device must be"),
        ({"cut": {"*": 0}}, "cut must be a table or a function, with a rank"),
    ],
)
def test_slips_are_told(said: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        asked(**said)


def test_one_process_or_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "launch_of", lambda _: pytest.fail("it is not asked"))
    words = "devices= are GPUs of this process alone: leave share= out"
    with two_stores() as (one, _), pytest.raises(UsageError, match=words):
        one.load_tensors("n", devices=["cuda:0"], share="host")
