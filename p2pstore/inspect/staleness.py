"""Which records of a deployment are stale: from records, and what their endpoints answered, to verdicts. Pure.

Upstream's records have no lease: those of a process that was killed stay for ever. A record is stale

- ``rpc_meta``: where its endpoint does not answer a probe;
- ``segment``: with its ``rpc_meta`` record, or without one, since then nobody can open it;
- ``checkpoint``: where every location of every shard is in a stale segment, or there is no location;
- ``master_view``: where its address takes no connection;
- an object of ours: where no node holds any of it;
- an earlier version of one: likewise, where its name stands for nothing any more.

What is malformed, and what nobody can be asked about (TENT segments, op-logs), is not judged. Names are compared as
they are in the store, never in the form in which they are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from engine.net.addresses import BadAddress, is_host, parse
from p2pstore.cluster import records
from p2pstore.cluster.records import ObjectRecord
from p2pstore.inspect import ours, upstream
from p2pstore.inspect.values import Malformed, items, parse_object, printable
from p2pstore.metadata.store import MAX_OPERATIONS, Absent, AbsentPrefix, Condition, KeyValue, Unchanged

MAX_EVIDENCE = MAX_OPERATIONS - 1
"""Conditions about other keys in one transaction; a checkpoint in more segments than that is not judged."""

_PROTOCOLS = ("tcp", "rdma")
"""Protocols whose segments are opened through ``rpc_meta``."""


class ProbeAnswer(Enum):
    """What came of asking an endpoint."""

    ALIVE = "alive"
    REFUSED = "refused"
    """Its machine says that nobody listens there."""
    SILENT = "silent"
    """Nothing came: the process hangs, its machine is off, or the network between does not let us through."""
    STRANGE = "strange"
    """Somebody is there, and does not speak the handshake."""
    NOT_ASKED = "not asked"


class RecordState(Enum):
    """Of a record. ``UNREACHABLE`` is stale too, unless it is only out of our reach."""

    ALIVE = "alive"
    STALE = "stale"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """Where to ask: with a probe of the handshake, or, for ``plain``, by connecting."""

    host: str
    port: int
    plain: bool = False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one record, why, and on which records (as conditions) that rests."""

    state: RecordState
    why: str
    evidence: tuple[Condition, ...] = ()


_BY_ANSWER = {
    ProbeAnswer.ALIVE: (RecordState.ALIVE, "{endpoint} answers"),
    ProbeAnswer.REFUSED: (RecordState.STALE, "{endpoint} refuses connections"),
    ProbeAnswer.SILENT: (RecordState.UNREACHABLE, "{endpoint} does not answer"),
    ProbeAnswer.STRANGE: (RecordState.UNKNOWN, "{endpoint} answers something else"),
    ProbeAnswer.NOT_ASKED: (RecordState.UNKNOWN, "{endpoint} was not asked: each machine has a loopback of its own"),
}


@dataclass(frozen=True, slots=True)
class _Segment:
    item: KeyValue
    rpc_key: str
    name: str
    openable: bool
    """Whether it needs an ``rpc_meta`` record to be opened."""


class Deployment:
    """The records of a store, sorted for judging.

    ``complete``: they are all there are, so that what is missing is absent.
    """

    def __init__(self, found: Iterable[KeyValue], *, complete: bool) -> None:
        self._complete = complete
        self._rpc: dict[str, tuple[KeyValue, ProbeTarget]] = {}
        self._rpc_named: dict[str, list[str]] = {}
        self._segments: dict[str, _Segment] = {}
        self._checkpoints: dict[str, tuple[KeyValue, frozenset[str]]] = {}
        self._masters: dict[str, tuple[KeyValue, ProbeTarget]] = {}
        self._objects: dict[str, tuple[KeyValue, ObjectRecord]] = {}
        for item in found:
            family = ours.family_of(item.key)
            if family in {"object", "version"}:
                record = records.decode(ObjectRecord, item.value)
                if record is not None and record.manifest and "/" not in record.manifest:
                    self._objects[item.key] = (item, record)
                continue
            known = None if family else upstream.parts(item.key, item.value)
            if known is not None:
                self._add(item, *known)
        self._resting: dict[str, list[str]] = {}
        for key in self._segments:
            for rpc in self.rests_on(key):
                self._resting.setdefault(rpc, []).append(key)

    def _add(self, item: KeyValue, family: str, fields: Mapping[str, str]) -> None:
        try:
            if family in {"rpc_meta", "segment", "checkpoint", "master_view"}:
                upstream.decode(family, item.value)  # what is malformed is not judged
            if family == "rpc_meta" and (endpoint := _rpc_endpoint(item.value)):
                self._rpc[item.key] = (item, endpoint)
                self._rpc_named.setdefault(fields["name"], []).append(item.key)
            elif family == "segment":
                cluster = f"{fields['cluster']}/" if "cluster" in fields else ""
                openable = parse_object(item.value).get("protocol") in _PROTOCOLS
                rpc_key = f"mooncake/{cluster}rpc_meta/{fields['name']}"
                self._segments[item.key] = _Segment(item, rpc_key, fields["name"], openable)
            elif family == "checkpoint":
                self._checkpoints[item.key] = (item, _locations(item.value))
            elif family == "master_view" and (endpoint := _endpoint(item.value.decode().strip(), plain=True)):
                self._masters[item.key] = (item, endpoint)
        except Malformed:
            return

    def endpoints(self, keys: Iterable[str]) -> set[ProbeTarget]:
        """Whom to ask in order to judge ``keys``."""
        wanted: set[ProbeTarget] = set()
        for key in keys:
            if key in self._rpc:
                wanted.add(self._rpc[key][1])
            elif key in self._masters:
                wanted.add(self._masters[key][1])
            elif key in self._segments:
                wanted |= {self._rpc[rpc][1] for rpc in self.rests_on(key)}
            elif key in self._checkpoints:
                for name in self._checkpoints[key][1]:
                    rpcs = self._rpc_named.get(name, [])
                    direct = _endpoint(name)
                    wanted |= {self._rpc[rpc][1] for rpc in rpcs} or ({direct} if direct else set())
        return wanted

    def manifests(self, keys: Iterable[str]) -> set[str]:
        """The manifests whose replicas must be known in order to judge ``keys``."""
        return {self._objects[key][1].manifest for key in keys if key in self._objects}

    def judge(self, key: str, answers: Mapping[ProbeTarget, ProbeAnswer], held: Mapping[str, bool]) -> Verdict | None:
        """The verdict on one record, or None where it is none to judge.

        ``held`` says of each manifest whether any node has a replica.
        """
        if key in self._rpc:
            return self._of_endpoint(*self._rpc[key], answers)
        if key in self._masters:
            return self._of_endpoint(*self._masters[key], answers)
        if key in self._segments:
            return self._segment(self._segments[key], answers)
        if key in self._checkpoints:
            return self._checkpoint(*self._checkpoints[key], answers)
        if key in self._objects:
            item, record = self._objects[key]
            if held.get(record.manifest, True):
                return Verdict(RecordState.ALIVE, "a node holds it")
            evidence = (_unchanged(item), AbsentPrefix(records.replicas_prefix(record.manifest)))
            if ours.family_of(key) == "object":
                return Verdict(RecordState.STALE, "no node holds any of it", evidence)
            named = records.object_key(record.name)
            if self._complete and named not in self._objects:
                why = "no node holds any of it, and its name stands for nothing any more"
                return Verdict(RecordState.STALE, why, (*evidence, Absent(named)))
            return Verdict(RecordState.ALIVE, "it is in its object's history")
        return None

    def together(self, key: str) -> list[str]:
        """The segments that rest on an ``rpc_meta`` record."""
        return self._resting.get(key, [])

    def rests_on(self, key: str) -> list[str]:
        """The ``rpc_meta`` records of a segment; for one of those, itself; else nothing."""
        if key in self._rpc:
            return [key]
        segment = self._segments.get(key)
        if segment is None:
            return []
        if segment.rpc_key in self._rpc:
            return [segment.rpc_key]
        # A segment whose name holds a slash has no cluster in its key, whatever its cluster is.
        return self._rpc_named.get(segment.name, []) if "/" in segment.name else []

    @staticmethod
    def _of_endpoint(item: KeyValue, endpoint: ProbeTarget, answers: Mapping[ProbeTarget, ProbeAnswer]) -> Verdict:
        state, why = _BY_ANSWER[answers.get(endpoint, ProbeAnswer.NOT_ASKED)]
        return Verdict(state, why.format(endpoint=endpoint), (_unchanged(item),))

    def _segment(self, segment: _Segment, answers: Mapping[ProbeTarget, ProbeAnswer]) -> Verdict:
        rpcs = [self._of_endpoint(*self._rpc[rpc], answers) for rpc in self.rests_on(segment.item.key)]
        if rpcs:
            state = _of_all(verdict.state for verdict in rpcs)
            why = next(verdict.why for verdict in rpcs if verdict.state is state)
            return Verdict(state, why, (_unchanged(segment.item), *(c for v in rpcs for c in v.evidence)))
        if not segment.openable or not self._complete:
            return Verdict(RecordState.UNKNOWN, "its rpc_meta record was not found")
        evidence = (_unchanged(segment.item), Absent(segment.rpc_key))
        return Verdict(RecordState.STALE, "it has no rpc_meta record, so nobody can open it", evidence)

    def _checkpoint(self, item: KeyValue, names: frozenset[str], answers: Mapping[ProbeTarget, ProbeAnswer]) -> Verdict:
        if not names:
            return Verdict(RecordState.STALE, "no shard has a location", (_unchanged(item),))
        if len(names) > MAX_EVIDENCE:
            return Verdict(RecordState.UNKNOWN, f"it is in more than {MAX_EVIDENCE} segments")
        verdicts = {name: self._location(name, answers) for name in sorted(names)}
        state = _of_all(verdict.state for verdict in verdicts.values())
        alive = sum(verdict.state is RecordState.ALIVE for verdict in verdicts.values())
        if state is RecordState.ALIVE:
            why = f"{alive} of the {len(names)} segments that hold it live"
        else:
            first = next(verdict.why for verdict in verdicts.values() if verdict.state is state)
            why = f"of the {len(names)} segments that hold it none is known to live: {first}"
        evidence = (_unchanged(item), *(c for verdict in verdicts.values() for c in verdict.evidence))
        return Verdict(state if len(evidence) <= MAX_OPERATIONS else RecordState.UNKNOWN, why, evidence)

    def _location(self, name: str, answers: Mapping[ProbeTarget, ProbeAnswer]) -> Verdict:
        """The verdict on a segment that a checkpoint names."""
        rpcs = [self._of_endpoint(*self._rpc[rpc], answers) for rpc in self._rpc_named.get(name, [])]
        if rpcs:
            state = _of_all(verdict.state for verdict in rpcs)
            why = next(verdict.why for verdict in rpcs if verdict.state is state)
            return Verdict(state, why, tuple(c for verdict in rpcs for c in verdict.evidence))
        if not self._complete:
            return Verdict(RecordState.UNKNOWN, f"the record of segment {printable(name)} was not found")
        absent = (Absent(f"mooncake/rpc_meta/{name}"),)
        direct = _endpoint(name)
        if direct is None:
            return Verdict(RecordState.STALE, f"there is no segment {printable(name)}", absent)
        # Under P2PHANDSHAKE a segment's name is its address, and there is no record of it.
        state, why = _BY_ANSWER[answers.get(direct, ProbeAnswer.NOT_ASKED)]
        return Verdict(state, why.format(endpoint=direct), absent)


def _of_all(states: Iterable[RecordState]) -> RecordState:
    """Alive where one is; stale where all are."""
    found = set(states)
    for state in (RecordState.ALIVE, RecordState.UNKNOWN, RecordState.UNREACHABLE):
        if state in found:
            return state
    return RecordState.STALE


def _unchanged(item: KeyValue) -> Unchanged:
    return Unchanged(item.key, item.mod_revision)


def _rpc_endpoint(value: bytes) -> ProbeTarget | None:
    data = parse_object(value)
    host, port = str(data["ip_or_host_name"]), int(data["rpc_port"])
    return ProbeTarget(host, port) if is_host(host) else None


def _endpoint(text: str, *, plain: bool = False) -> ProbeTarget | None:
    try:
        host, port = parse(text)
    except BadAddress:
        return None
    return ProbeTarget(host, port, plain)


def _locations(value: bytes) -> frozenset[str]:
    """The names of all segments that hold any shard, as they are."""
    return frozenset(
        str(location["segment_name"])
        for shard in items(parse_object(value), "shards")
        for holders in ("gold", "replica_list")
        for location in items(shard, holders)
    )
