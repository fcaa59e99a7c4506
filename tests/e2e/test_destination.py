"""What a get does with what stands at its destination: nothing is lost that the user did not name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.cluster import Agent, Cluster, halted_get, leftovers, make_file, resume, tree
from tests.p2pstore.mounting import mounted, overlay

MIB = 1 << 20


@pytest.fixture(scope="module")
def source(shared: Cluster) -> Agent:
    agent = shared.agent("source")
    folder = shared.path("folder")
    (folder / "sub").mkdir(parents=True)
    make_file(folder / "a", MIB, 1)
    make_file(folder / "sub" / "b", MIB, 2)
    agent.ok("register", folder, "--name", "folder")
    agent.ok("register", folder / "a", "--name", "file")
    return agent


@pytest.fixture(scope="module")
def getter(shared: Cluster, source: Agent) -> Agent:
    return shared.agent("getter")


@pytest.fixture
def place(shared: Cluster, request: pytest.FixtureRequest) -> Path:
    """A directory of the test's own."""
    path = shared.path("".join(c if c.isalnum() else "-" for c in request.node.name))
    path.mkdir()
    return path


def folder(shared: Cluster) -> object:
    return tree(shared.path("folder"))


def test_force_deletes_nobody_elses_files(shared: Cluster, getter: Agent, place: Path) -> None:
    """One forgotten slash must not cost a disk of checkpoints."""
    precious = make_file(place / "precious", 100)
    for options in ((), ("--force",)):
        for name in ("folder", "file"):
            error = getter.fails(7, "get", name, place, *options)
            advice = error["advice"]
            assert advice.index("DEST/") < advice.find("--force") % 1000, "what loses nothing comes first"
    assert error["type"] == "ForeignContent"
    assert "precious" in error["message"]
    assert precious.stat().st_size == 100
    getter.ok("get", "folder", f"{place}/")
    assert tree(place / "folder") == folder(shared)
    assert precious.stat().st_size == 100
    error = getter.fails(7, "get", "file", place, "--wipe")
    assert (error["type"], error["fields"]["name"]) == ("DestinationServed", "folder")
    getter.ok("unregister", "folder")
    getter.ok("get", "file", place, "--wipe")
    assert place.is_file()


def test_a_refusal_does_not_say_that_it_replaces(getter: Agent, place: Path) -> None:
    dest = place / "served"
    getter.ok("get", "folder", dest)
    (dest / "mine").write_bytes(b"x")
    done = getter.run("get", "file", dest, "--force")
    assert done.status == 7, done
    assert "it has 'mine' in it" in done.err
    assert "will do so no more" not in done.err


@pytest.mark.parametrize("path", ["/dev/stdout", "/proc/self/cwd/new"])
def test_the_agent_is_led_to_nothing_of_its_own(source: Agent, getter: Agent, path: str) -> None:
    for agent, arguments in (
        (getter, ("get", "folder", path)),
        (source, ("register", "/dev/fd/0", "--name", "own")),
        (source, ("verify", "/proc/self/environ")),
    ):
        assert "is another file in each process" in agent.fails(2, *arguments)["message"]


def test_an_earlier_version_is_replaced(shared: Cluster, source: Agent, getter: Agent, place: Path) -> None:
    """Also one that had files which the new one has not: this node remembers what it put there."""
    model, dest = place / "model", place / "copy"
    model.mkdir()
    make_file(model / "1-of-2", MIB, 3)
    make_file(model / "2-of-2", MIB, 4)
    source.ok("register", model, "--name", "model")
    getter.ok("get", "model", dest)
    for path in model.iterdir():
        path.unlink()
    make_file(model / "1-of-1", MIB, 5)
    source.ok("register", model, "--name", "model", "--force")
    (dest / "notes").write_text("mine")
    assert getter.fails(7, "get", "model", dest, "--force")["fields"]["name"] == "notes"
    assert sorted(os.listdir(dest)) == ["1-of-2", "2-of-2", "notes"]
    (dest / "notes").unlink()
    getter.ok("get", "model", dest, "--force")
    assert tree(dest) == tree(model)
    assert leftovers(dest) == []


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_is_followed(shared: Cluster, getter: Agent, place: Path, dangling: bool) -> None:
    """The data lie on the disk to which it leads."""
    far, link = place / "far", place / "link"
    if not dangling:
        far.mkdir()
    link.symlink_to("far")
    assert getter.ok("get", "folder", link)["dest"] == str(far)
    assert link.is_symlink()
    assert tree(far) == folder(shared)
    (place / "to a file").symlink_to("data")
    (place / "data").write_text("old")
    assert getter.fails(7, "get", "file", place / "to a file")["type"] == "DestinationExists"
    getter.ok("get", "file", place / "to a file", "--force")
    assert (place / "to a file").is_symlink()
    assert (place / "data").stat().st_size == MIB
    (place / "circle").symlink_to("circle")
    assert getter.fails(7, "get", "file", place / "circle")["type"] == "NotReplaceable"


def test_a_volume_is_filled_and_resumed(cluster: Cluster) -> None:
    source, getter = cluster.agents("source", "getter")
    path, volume = cluster.path("big"), cluster.path("volume")
    for directory in (path, volume):
        directory.mkdir()
    make_file(path / "big", 48 * MIB)
    source.ok("register", path, "--name", "big", "--chunk-size", "1MiB")
    with mounted("tmpfs", volume, "size=80m"):
        (volume / "lost+found").mkdir()
        running = getter.begin("get", "big", volume, "--transport", "tcp", "--json")
        assert running.wait().status == 0
        assert sorted(os.listdir(volume)) == ["big", "lost+found"]
        assert (volume / "big").read_bytes() == (path / "big").read_bytes()
        assert leftovers(volume) == []
        assert getter.ok("get", "big", volume)["bytes_pulled"] == 0


def test_a_directory_of_an_image_is_replaced(shared: Cluster, getter: Agent, place: Path) -> None:
    (place / "lower" / "m" / "sub").mkdir(parents=True)
    (place / "lower" / "m" / "a").write_text("old")
    with overlay(place) as merged:
        getter.ok("get", "folder", merged / "m", "--force")
        assert tree(merged / "m") == folder(shared)
        assert os.listdir(merged) == ["m"]


def test_the_agents_home_is_no_destination(getter: Agent, place: Path) -> None:
    for dest in (getter.home, getter.home / "x", getter.home / "state" / "catalog.db", getter.home.parent):
        for options in (("--force",), ("--wipe",)):
            error = getter.fails(2, "get", "folder", dest, *options)
            assert error["type"] == "UsageError"
            assert "home" in error["message"]
    getter.ok("list")


def test_into_what_is_registered(shared: Cluster, source: Agent, getter: Agent, place: Path) -> None:
    """Beside its files something may be put, and is told of; its files are not replaced."""
    model = place / "model"
    model.mkdir()
    make_file(model / "weights", MIB, 7)
    getter.ok("register", model, "--name", "theirs")
    error = getter.fails(7, "get", "file", model / "weights", "--force")
    assert (error["type"], error["fields"]["name"]) == ("DestinationServed", "theirs")
    done = getter.run("get", "file", f"{model}/", "--json")
    assert done.status == 0, done
    assert "theirs" in done.err
    assert source.run("get", "theirs", place / "copy").status == 0


def test_what_stands_in_the_way_is_found_out_before_the_first_byte(cluster: Cluster) -> None:
    """Nothing of the object has been asked for by then."""
    source, getter = cluster.agents("source", "getter")
    path = make_file(cluster.path("big"), 4 * MIB)
    source.ok("register", path, "--name", "big")
    pipe, busy = cluster.path("pipe"), cluster.path("busy")
    os.mkfifo(pipe)
    busy.mkdir()
    (busy / "x").touch()
    dests = {pipe: 2, busy: 7, path / "below": 8, cluster.path("n" * 256): 8, cluster.path("no") / "x": 3}
    for dest, status in dests.items():
        for options in (("--force",), ("--force", "--dry-run")):
            getter.fails(status, "get", "big", dest, *options)
    assert source.status()["bytes_sent"] == 0
    assert [p.name for p in cluster.path("x").parent.glob(".*.part")] == []


def test_what_another_program_writes_meanwhile_is_not_verified(cluster: Cluster) -> None:
    source, getter = cluster.agents("source", "getter")
    path, dest = make_file(cluster.path("big"), 96 * MIB), cluster.path("copy")
    source.ok("register", path, "--name", "big", "--chunk-size", "1MiB")
    running = halted_get(getter, [source], "big", dest)
    (part,) = dest.parent.glob(".copy*.part/part")
    with part.open("r+b") as file:
        file.write(b"?" * 96 * MIB)  # what is verified by then is not written again
    resume(source)
    done = running.wait()
    assert done.status == 10, done
    assert done.error["type"] == "PartChanged"
    assert not dest.exists()
    got = getter.ok("get", "big", dest)
    assert 0 < got["bytes_pulled"] < 96 * MIB, "what was written later is right"
    assert dest.read_bytes() == path.read_bytes()
