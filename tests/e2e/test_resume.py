"""A get that is interrupted, by whatever, goes on where it was; a get whose sources fail takes from the others."""

from __future__ import annotations

import contextlib
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pstore.pull.workplace import work_name
from p2pstore.swarm.peer import WINDOW_BYTES
from tests.e2e.cluster import (
    Agent,
    Cluster,
    Etcd,
    Running,
    eventually,
    flip,
    halted_get,
    is_alive,
    journalled,
    leftovers,
    make_file,
    ports_of_its_own,
    resume,
    tree,
)

MIB = 1 << 20
SIZE = 96 * MIB
IN_FLIGHT = WINDOW_BYTES + MIB
"""Bytes that may be under way, with chunks of 1 MiB."""


@dataclass
class Story:
    """One object on one source, and a getter that has nothing."""

    cluster: Cluster
    source: Agent
    getter: Agent
    path: Path
    dest: Path
    name: str = "big"

    def halted(self) -> tuple[Running, int]:
        """A get in its middle, where it stays, and how many chunks it has at least."""
        return halted_get(self.getter, [self.source], self.name, self.dest), journalled(self.dest)

    def resume(self) -> None:
        resume(self.source)

    def resume_when_ended(self) -> None:
        """Once the agent's get has ended, whose command has: it would bring all at once."""
        eventually(lambda: self.getter.status()["gets"] == 0, "the agent's get has ended")
        self.resume()

    def sent(self) -> list[int]:
        """The bytes that the source has sent, if it sends none now."""
        found = [self.source.status()["bytes_sent"] for _ in range(2)]
        return found if found[0] == found[1] else []

    def finishes(self, had: int) -> None:
        """The same command again brings what is missing, and hardly more."""
        sent = eventually(self.sent, "what was begun before is sent no more")[0]
        got = self.getter.ok("get", self.name, self.dest, "--transport", "tcp")
        assert tree(self.dest) == tree(self.path)
        assert got["bytes_reused"] + got["bytes_pulled"] == SIZE
        assert got["bytes_reused"] >= had * MIB, "no verified chunk was fetched twice"
        assert self.source.status()["bytes_sent"] - sent == got["bytes_pulled"]
        assert sent + got["bytes_pulled"] <= SIZE + IN_FLIGHT, "no more was fetched again than was in flight"
        assert leftovers(self.dest) == []


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_file(tmp_path_factory.mktemp("content") / "big", SIZE)


@pytest.fixture
def place(request: pytest.FixtureRequest, cluster: Cluster) -> Path:
    """Where the source lies; on a tmpfs for tests that say so."""
    wanted = getattr(request, "param", "")
    return Path(request.getfixturevalue(wanted)) if wanted else cluster.work


@pytest.fixture
def story(cluster: Cluster, content: Path, place: Path) -> Story:
    source, getter = cluster.agent("source", **ports_of_its_own()), cluster.agent("getter")
    path = place / "big"
    shutil.copyfile(content, path)
    source.ok("register", path, "--name", "big", "--chunk-size", "1MiB")
    return Story(cluster, source, getter, path, cluster.path("copy"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_the_command_is_ended(story: Story, number: signal.Signals) -> None:
    running, had = story.halted()
    running.send(number)
    done = running.wait()
    assert done.out == ""
    if number is signal.SIGINT:
        assert done.status == 130, done
        assert "run the same command again to resume" in done.error["message"]
        assert f"get big {story.dest}" in done.error["message"], "it says which"
    else:
        assert done.status == -number
    assert not story.dest.exists()
    story.resume_when_ended()
    story.finishes(had)


def test_the_agent_is_killed(story: Story) -> None:
    running, had = story.halted()
    story.getter.kill()
    done = running.wait()
    assert (done.status, done.out) == (5, ""), done
    assert done.error["type"] == "AgentGone"
    assert not story.dest.exists()
    story.resume()
    story.getter.start()
    story.finishes(had)


def test_the_agent_is_killed_and_the_command_starts_another(story: Story) -> None:
    running, had = story.halted()
    story.getter.kill()
    running.wait()
    story.resume()
    story.finishes(had)


def test_sigterm_of_the_agent_journals_the_partial_get(story: Story) -> None:
    running, had = story.halted()
    with story.source.frozen():
        pid = story.getter.signal(signal.SIGTERM)
        eventually(lambda: not is_alive(pid), "it ended though its source does not answer")
        assert running.wait().status in {5, 130}
    eventually(lambda: story.source.run("list").status == 0, "the source is awake")
    story.resume()
    assert set(story.source.holders("big")) == {story.source.name}, "its lease is revoked"
    story.getter.start()
    story.finishes(had)


def test_a_directory_resumes(story: Story) -> None:
    folder = story.cluster.path("folder")
    (folder / "sub").mkdir(parents=True)
    (folder / "void").mkdir()
    for number in range(6):
        make_file(folder / ("sub" if number % 2 else ".") / f"shard {number}", SIZE // 6, seed=100 + number)
    (folder / "empty").touch()
    story.source.ok("register", folder, "--name", "folder", "--chunk-size", "1MiB")
    story.path, story.name = folder, "folder"
    running, had = story.halted()
    running.send(signal.SIGKILL)
    running.wait()
    story.resume_when_ended()
    story.finishes(had)


def test_what_is_partial_is_checked_again_before_it_counts(story: Story) -> None:
    running, _ = story.halted()
    story.getter.kill()
    running.wait()
    part = story.dest.with_name(work_name("copy")) / "part"
    with part.open("r+b") as file:
        file.write(bytes(SIZE))  # every verified chunk is gone, and the journal does not know
    story.resume()
    story.getter.start()
    got = story.getter.ok("get", "big", story.dest, "--transport", "tcp")
    assert (got["bytes_reused"], got["bytes_pulled"]) == (0, SIZE)
    assert tree(story.dest) == tree(story.path)


def test_what_a_get_killed_in_its_last_moment_left_is_tidied_up(story: Story) -> None:
    """It had put the object in place, and not yet removed its journal and, with --force, what had been there."""
    running, _ = story.halted()
    work, kept = story.dest.with_name(work_name("copy")), story.cluster.path("kept")
    running.send(signal.SIGINT)
    running.wait()
    eventually(lambda: list(work.glob("ended.*")), "the agent's get lets go of it")
    shutil.copytree(work, kept)
    story.resume()
    story.getter.ok("get", "big", story.dest, "--transport", "tcp")
    shutil.copytree(kept, work)
    (work / "part").write_bytes(b"what was there before")
    got = story.getter.ok("get", "big", story.dest)
    assert got["bytes_pulled"] == 0
    assert leftovers(story.dest) == []

    other = make_file(story.cluster.path("other"), MIB, 1)
    story.source.ok("register", other, "--name", "other")
    other_dest = story.dest.with_name("other-copy")
    story.getter.ok("get", "other", other_dest)
    shutil.copytree(kept, other_dest.with_name(work_name("other-copy")))
    story.getter.ok("get", "other", other_dest)
    assert leftovers(other_dest) == [work_name("other-copy")], "what belongs to another object's get stays"


def test_two_gets_into_one_destination(story: Story) -> None:
    running, _ = story.halted()
    assert story.getter.fails(7, "get", "big", story.dest)["type"] == "DestinationBusy"
    story.resume()
    assert running.wait().status == 0
    assert tree(story.dest) == tree(story.path)


def test_a_destination_that_appears_meanwhile_is_not_overwritten(story: Story) -> None:
    running, had = story.halted()
    story.dest.write_text("mine")
    story.resume()
    done = running.wait()
    assert done.status == 7, done
    assert done.error["type"] == "DestinationExists"
    assert story.dest.read_text() == "mine"
    story.dest.unlink()
    got = story.getter.ok("get", "big", story.dest)
    assert got["bytes_pulled"] == 0, "all of it was there already"
    assert had > 0
    assert tree(story.dest) == tree(story.path)


def test_a_source_that_is_killed_and_comes_back(story: Story) -> None:
    running, _ = story.halted()
    story.source.kill()
    with story.getter.frozen():  # it has half a minute of patience, and a start may take that long
        story.source.start()
    done = running.wait()
    assert done.status == 0, done
    assert tree(story.dest) == tree(story.path)


def test_a_source_that_is_killed_for_good(story: Story) -> None:
    running, had = story.halted()
    story.source.kill()
    done = running.wait()
    assert done.status == 5, done
    assert done.error["type"] == "NoLivePeer"
    assert "resumes" in done.error["advice"]
    assert not story.dest.exists()
    assert journalled(story.dest) >= had
    story.source.start()
    got = story.getter.ok("get", "big", story.dest, "--transport", "tcp")
    assert got["bytes_reused"] >= had * MIB
    assert tree(story.dest) == tree(story.path)


def test_a_metadata_outage_during_a_get(story: Story, etcd: Etcd) -> None:
    running, _ = story.halted()
    etcd.kill()
    story.resume()
    done = running.wait()
    assert done.status == 0, f"{done}\n{story.getter.log()}"
    assert tree(story.dest) == tree(story.path)
    etcd.start()
    both = {story.source.name, story.getter.name}
    eventually(
        lambda: story.source.run("list").status == 0 and set(story.source.holders("big")) == both,
        "when etcd is back, both say what they hold",
    )


@pytest.fixture
def two(story: Story) -> tuple[Agent, Agent]:
    """A second source of the story's object, over TCP."""
    second = story.cluster.agent("second")
    second.ok("get", "big", story.cluster.path("second-copy"), "--transport", "tcp")
    return story.source, second


@pytest.mark.parametrize("fault", ["killed", "stopped", "withdrawn"])
def test_one_of_two_sources_fails(story: Story, two: tuple[Agent, Agent], fault: str) -> None:
    bad, good = two
    running = halted_get(story.getter, two, "big", story.dest)
    with contextlib.ExitStack() as after:
        if fault == "killed":
            bad.kill()
        elif fault == "withdrawn":
            bad.ok("unregister", "big")
        else:
            after.enter_context(bad.frozen())
        resume(good)
        done = running.wait()
    assert done.status == 0, f"{done}\n{story.getter.log()}"
    assert tree(story.dest) == tree(story.path)
    assert done.json["peers"].get(good.name, 0) > 0
    assert sum(done.json["peers"].values()) == done.json["bytes_pulled"] == SIZE


def spoil(path: Path) -> None:
    """Flip a byte in every chunk: nothing but the content tells."""
    flip(path, range(0, path.stat().st_size, MIB))


IN_MEMORY = pytest.mark.parametrize("place", ["tmpfs"], indirect=True)


@IN_MEMORY
def test_a_source_of_wrong_bytes_costs_only_its_own_chunks_and_is_named(story: Story, two: tuple[Agent, Agent]) -> None:
    bad, good = two
    spoil(story.path)
    third = story.cluster.path("second-copy")
    for attempt in range(10):
        dest = story.cluster.path(f"copy-{attempt}")
        done = story.getter.run("get", "big", dest, "--transport", "tcp", "--no-seed", "--json")
        assert done.status == 0, f"{done}\n{story.getter.log()}"
        assert dest.read_bytes() == third.read_bytes()
        assert done.json["peers"] == {good.name: SIZE}, "nothing of the other's counts"
        if bad.name in done.err:
            break  # a get that is done before it asks the bad one has nothing to say
    else:
        raise AssertionError(f"the bad source was never named: {done}")
    assert f"peer {bad.name} sent wrong bytes" in done.err
    assert [banned["node"] for banned in story.getter.run("info", "big", "--json").json["banned"]] == [bad.name]


@IN_MEMORY
def test_only_a_source_of_wrong_bytes(story: Story) -> None:
    spoil(story.path)
    error = story.getter.fails(4, "get", "big", story.dest, "--transport", "tcp")
    assert error["type"] == "ChunkMismatch"
    assert story.source.name in error["message"]
    assert not story.dest.exists()
    assert story.source.fails(3, "info", "big")["type"] == "ObjectNotFound", "it heard of it, and serves it no more"


@IN_MEMORY
def test_only_a_source_of_wrong_bytes_on_the_same_host(story: Story) -> None:
    spoil(story.path)
    error = story.getter.fails(4, "get", "big", story.dest, "--transport", "local")
    assert error["type"] == "ChunkMismatch"
    assert not story.dest.exists()


def test_a_part_is_served_while_the_rest_is_missing(story: Story) -> None:
    """The source hardly sends; a third node takes from the getter what that has, and both finish together."""
    running, had = story.halted()
    third = story.cluster.agent("third")

    def is_told() -> bool:
        part = third.holders("big")[story.getter.name]
        return bool(part["state"] == "partial" and part["chunks"] >= had)

    eventually(is_told, "the third is told what the second has")
    copy = story.cluster.path("third-copy")
    other = third.begin("get", "big", copy, "--transport", "tcp", "--json")
    eventually(lambda: journalled(copy) >= had, "the third has what the second had")
    story.resume()
    for command in (running, other):
        done = command.wait()
        assert done.status == 0, f"{done}\n{third.log()}"
    assert done.json["peers"][story.getter.name] >= (had - IN_FLIGHT // MIB) * MIB, "most of it came from the second"
    assert tree(copy) == tree(story.dest) == tree(story.path)
