"""Which generation a caller is of, where its literals do not tell."""

from __future__ import annotations

from typing import Any

import pytest

from engine.rpc.messages import ReplicateConfig
from engine.rpc.methods import GENERATIONS, METHODS, NEWEST
from p2pstore.kv.master import generations as g
from p2pstore.kv.master.generations import Generations, Speaker

HOST = "10.0.0.1"


class Talk:
    """Clients of one address, on a clock of the test's."""

    def __init__(self) -> None:
        self.known = Generations()
        self.now = 100.0

    def opens(self, host: str = HOST) -> Speaker:
        self.now += 0.001
        return self.known.opened(host, self.now)

    def says(self, speaker: Speaker, generation: str, call: str, *args: Any) -> str:
        """A call as that generation sends it; returns how it would be answered."""
        self.now += 0.001
        speaker.active = self.now
        if speaker.tried:
            self.known.again(speaker)
        form = METHODS[call].requests[generation]
        if form not in speaker.seen:
            self.known.heard(speaker, form, args)
        differ = len({METHODS[call].answers[each].hash for each in form.generations}) > 1
        return self.known.guess(speaker, form) if differ else self.known.likely(speaker, form)

    def gets(self, speaker: Speaker, generation: str) -> str:
        return self.says(speaker, generation, "GetReplicaList", "k", "default")

    def starts(self, generation: str, name: bytes, *, memory: bool = True) -> list[Speaker]:
        """What the wheels were seen to do: the connections of a client."""
        first = self.opens()
        self.says(first, generation, "ServiceReady")
        self.says(first, generation, "GetStorageConfig")
        if generation == "0.3.9":
            second = self.opens()
            self.says(second, generation, "Ping", name)
            self.says(first, generation, "ReMountSegment", [], name)
            return [first, second]
        if not memory:
            return [first]
        self.says(first, generation, "MountSegment", None, name)
        second, third = self.opens(), self.opens()
        self.says(second, generation, "Ping", name)
        self.says(third, generation, "FetchTasks", name, 16)
        return [first, second, third]

    def puts(self, speaker: Speaker, generation: str, name: bytes) -> str:
        return self.says(speaker, generation, "PutStart", name, "k", 1, ReplicateConfig(), "default")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_put_tells_for_its_connection_and_for_the_others_of_its_client(generation: str) -> None:
    talk = Talk()
    first, second, *_ = talk.starts(generation, b"a")
    assert talk.puts(first, generation, b"a") == generation
    assert talk.gets(first, generation) == generation
    assert talk.gets(second, generation) == generation


def test_who_says_nothing_is_taken_for_the_newest() -> None:
    talk = Talk()
    assert talk.gets(talk.opens(), "0.3.9") == "0.3.11"
    assert talk.gets(talk.opens(), NEWEST) == NEWEST


def test_who_fetches_tasks_is_not_of_0_3_9() -> None:
    talk = Talk()
    (_, _, third) = talk.starts("0.3.11", b"a")
    assert "0.3.9" not in third.possible
    assert talk.gets(third, "0.3.11") == "0.3.11"


def test_who_remounts_nothing_is_of_0_3_9() -> None:
    talk = Talk()
    for speaker in talk.starts("0.3.9", b"a"):
        assert talk.gets(speaker, "0.3.9") == "0.3.9"


def test_a_first_connection_is_paired_with_the_ping_beside_it() -> None:
    """0.3.9 pings over a second connection; what remounts nothing may be that one, too."""
    talk = Talk()
    first = talk.opens()
    talk.says(first, "0.3.9", "ServiceReady")
    second = talk.opens()
    talk.says(second, "0.3.9", "Ping", b"a")
    talk.says(second, "0.3.9", "ReMountSegment", [], b"a")
    assert talk.gets(first, "0.3.9") == "0.3.9"


@pytest.mark.parametrize("late", [0.0, 5.0, 12.0])
def test_a_ping_that_comes_late_belongs_to_the_connection_that_came_last(late: float) -> None:
    talk = Talk()
    other = talk.opens()
    talk.says(other, "0.3.11", "ServiceReady")
    talk.now += 5
    first = talk.opens()
    talk.says(first, "0.3.9", "ServiceReady")
    talk.now += late / 10
    second = talk.opens()
    talk.now += late
    talk.says(second, "0.3.9", "Ping", b"a")
    talk.says(second, "0.3.9", "ReMountSegment", [], b"a")
    assert talk.gets(other, "0.3.11") == "0.3.11"
    assert talk.gets(first, "0.3.9") == "0.3.9"
    (reader,) = talk.starts("0.3.11", b"", memory=False)
    assert talk.gets(reader, "0.3.11") == "0.3.11", "the ping has its connection already"


def test_a_reader_beside_a_client_of_0_3_9_is_of_0_3_11() -> None:
    talk = Talk()
    talk.starts("0.3.9", b"a")
    talk.now += g.PAIRED_S
    (reader,) = talk.starts("0.3.11", b"", memory=False)
    assert talk.gets(reader, "0.3.11") == "0.3.11"


def test_a_reader_right_after_one_of_0_3_9_is_of_0_3_11() -> None:
    talk = Talk()
    for speaker in talk.starts("0.3.9", b"a"):
        talk.gets(speaker, "0.3.9")
        talk.known.closed(speaker, talk.now)
    (reader,) = talk.starts("0.3.11", b"", memory=False)
    assert talk.gets(reader, "0.3.11") == "0.3.11"


@pytest.mark.parametrize(("busy", "idle"), [("0.3.9", "0.3.11"), ("0.3.11", "0.3.9")])
def test_a_further_connection_is_of_the_client_that_has_none_to_spare(busy: str, idle: str) -> None:
    talk = Talk()
    working = talk.starts(busy, b"b")
    talk.now += 10
    talk.starts(idle, b"i")
    talk.now += 10
    for speaker in working:
        talk.gets(speaker, busy)
    assert talk.gets(talk.opens(), busy) == busy


def test_a_further_connection_of_a_reader_is_told_likewise() -> None:
    talk = Talk()
    (reader,) = talk.starts("0.3.11", b"", memory=False)
    talk.now += 10
    for speaker in talk.starts("0.3.9", b"i"):
        talk.gets(speaker, "0.3.9")
    talk.now += 10
    talk.gets(reader, "0.3.11")
    assert talk.gets(talk.opens(), "0.3.11") == "0.3.11"


def test_who_calls_again_was_answered_as_it_should_be() -> None:
    talk = Talk()
    reader = talk.opens()
    assert talk.gets(reader, "0.3.9") == "0.3.11"
    assert len(reader.possible) > 1
    talk.gets(reader, "0.3.11")
    assert reader.possible == ("0.3.11",)


def test_an_answer_that_several_can_read_proves_nothing_of_them() -> None:
    """The tasks of 0.3.11 and after have one form."""
    talk = Talk()
    speaker = talk.opens()
    talk.says(speaker, "0.3.11", "FetchTasks", b"a", 16)
    talk.says(speaker, "0.3.11", "Ping", b"a")
    assert set(speaker.possible) == {"0.3.11", "0.3.12", "0.3.13"}
    assert talk.gets(speaker, "0.3.11") == "0.3.11"


def test_who_could_not_read_its_answer_is_answered_otherwise_over_its_next_connection() -> None:
    talk = Talk()
    talk.starts("0.3.9", b"a")
    talk.now += 10
    (reader,) = talk.starts("0.3.11", b"", memory=False)
    talk.gets(reader, "0.3.11")
    lost = talk.opens()
    lost.tried = ("0.3.11",)
    talk.known.closed(lost, talk.now)
    assert talk.gets(talk.opens(), "0.3.9") == "0.3.9"
    assert talk.gets(talk.opens(), "0.3.11") == "0.3.11", "once"


def test_a_reader_of_0_3_12_alone_is_found_out_by_what_it_cannot_read() -> None:
    talk = Talk()
    answered = []
    for _ in range(3):
        speaker = talk.opens()
        answered.append(talk.gets(speaker, "0.3.12"))
        if answered[-1] != "0.3.12":
            talk.known.closed(speaker, talk.now)
    assert answered == [NEWEST, NEWEST, "0.3.12"]


def test_a_reader_of_0_3_12_beside_one_that_puts_is_known_at_once() -> None:
    talk = Talk()
    first, *_ = talk.starts("0.3.12", b"a")
    talk.puts(first, "0.3.12", b"a")
    (reader,) = talk.starts("0.3.12", b"", memory=False)
    assert talk.gets(reader, "0.3.12") == "0.3.12"


def test_who_ends_after_an_answer_is_not_taken_for_another_generation() -> None:
    """Short programs that ask for one key, one after another."""
    talk = Talk()
    for _ in range(5):
        speaker = talk.opens()
        assert talk.gets(speaker, NEWEST) == NEWEST
        talk.known.closed(speaker, talk.now)
        talk.now += g.DENIED_S


def test_addresses_know_nothing_of_one_another() -> None:
    talk = Talk()
    talk.starts("0.3.9", b"a")
    assert talk.gets(talk.opens("10.0.0.2"), "0.3.9") == "0.3.11"


def test_a_client_that_comes_back_is_known_by_its_id() -> None:
    talk = Talk()
    for speaker in talk.starts("0.3.12", b"a"):
        talk.puts(speaker, "0.3.12", b"a")
        talk.known.closed(speaker, talk.now)
    speaker = talk.opens()
    talk.says(speaker, "0.3.12", "Ping", b"a")
    assert talk.gets(speaker, "0.3.12") == "0.3.12"


def test_a_connection_that_changes_its_generation_is_answered_as_it_speaks() -> None:
    """Behind a proxy two clients may share one."""
    talk = Talk()
    speaker = talk.opens()
    assert talk.puts(speaker, "0.3.9", b"a") == "0.3.9"
    assert talk.puts(speaker, NEWEST, b"b") == NEWEST
    assert talk.puts(speaker, "0.3.9", b"a") == "0.3.9"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(g, "MAX_HOSTS", 3)
    monkeypatch.setattr(g, "MAX_CLIENTS", 3)
    talk = Talk()
    for number in range(10):
        speaker = talk.opens(f"10.0.1.{number}")
        talk.says(speaker, NEWEST, "Ping", b"%d" % number)
        talk.known.closed(speaker, talk.now)
    assert len(talk.known._hosts) == 3
    for number in range(10):
        talk.says(talk.opens(), NEWEST, "Ping", b"%d" % number)
    assert len(talk.known._hosts[HOST].clients) == 3
