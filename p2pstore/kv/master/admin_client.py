"""Asks a master over its metrics port, with the standard library alone: ours, and upstream's as far as that answers.

Each call raises ``MasterUnavailable`` where nobody answers, or whoever answers is no master.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from engine.net import addresses
from engine.rpc.codes import Code
from p2pstore.errors import UsageError
from p2pstore.kv.errors import KeyNotFound, MasterIsUpstreams, MasterRefused, MasterUnavailable

CONNECT_SECONDS = 5.0
"""For the master to accept a connection."""

ANSWER_SECONDS = 30.0
"""For each read of an answer."""

MAX_ANSWER = 256 << 20
"""Bytes of an answer: a status lists clients and segments, not keys."""

MAX_LINE = 1 << 21
"""Bytes of one key's line; upstream takes keys of a MiB."""

READ_BYTES = 1 << 18
"""Of a list, at a time."""

MAX_PATH = 8000
"""Bytes of what is asked for, which is one line of HTTP; servers take 8190 with all that belongs to it."""

SHOWN = 80
"""Characters of a strange answer that a message repeats."""


class AdminClient:
    """Calls to one master; a connection a call."""

    def __init__(self, address: str) -> None:
        """``address`` is ``HOST:PORT`` of its metrics port."""
        self.address = address
        self.reached = False
        """Whether the port took a connection, so that what is wrong is not the way there."""
        self._host, self._port = addresses.given(address)

    def status(self) -> dict[str, Any]:
        """All that a master of ours says of itself; of upstream's, what its own paths tell, in the same form."""
        answer: dict[str, Any] | None = self._json("GET", "/api/v1/status", missing_ok=True)
        return self._upstream_status() if answer is None else answer

    def keys(self, prefix: str = "", tenant: str | None = None, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Keys that begin with ``prefix``: key, and of ours tenant, size, replicas and whether it is complete."""
        query = {"prefix": prefix, **({} if tenant is None else {"tenant_id": tenant})}
        if limit is not None:
            query["limit"] = str(limit)
        with self._answer("GET", f"/api/v1/keys?{_query(query)}") as answer:
            if answer.status == http.HTTPStatus.OK:
                yield from (self._understood(line) for line in self._lines(answer))
                return
        with self._answer("GET", "/get_all_keys") as answer:
            self._check(answer)
            found = (line.decode(errors="surrogateescape") for line in self._lines(answer))
            for count, key in enumerate((key for key in found if key.startswith(prefix)), 1):
                yield {"key": key}
                if count == limit:
                    return

    def key(self, key: str, tenant: str) -> dict[str, Any]:
        """Size, lease and replicas of a key. Raises ``KeyNotFound``."""
        answer = self._of_key("GET", "/api/v1/keys/info", "/api/v1/keys/info", key, {"tenant_id": tenant})
        if answer is None:
            return self._upstream_key(key, tenant)
        if "error_code" in answer:
            raise self._refusal(answer, f"to show {key!r}", key)
        found: dict[str, Any] = answer
        return found

    def remove(self, key: str, tenant: str, *, force: bool) -> None:
        """Remove a key. Raises ``KeyNotFound``, or ``MasterRefused`` where it is leased or written."""
        query = {"tenant_id": tenant, "force": str(int(force))}
        answer = self._of_key("DELETE", "/api/v1/keys", "/api/v1/keys/remove", key, query)
        if answer is None:
            raise MasterIsUpstreams(address=self.address, what="remove one key")
        if "error_code" in answer:
            raise self._refusal(answer, f"to remove {key!r}", key)

    def remove_all(self, tenant: str | None, *, force: bool) -> int:
        """Remove all keys of a tenant, or of everybody; how many there were."""
        query = {"force": str(int(force)), **({} if tenant is None else {"tenant_id": tenant})}
        answer = self._json("POST", f"/api/v1/remove_all?{_query(query)}")
        try:
            return int(answer["removed_count"])
        except (KeyError, TypeError, ValueError):
            raise self._strange(answer) from None

    def why(self, *, key: str | None = None, tenant: str = "", client: str = "") -> list[dict[str, Any]]:
        """What explains that a key cannot be read, or what is wrong with a client or with all."""
        if key is None:
            answer = self._json("GET", f"/api/v1/why?{_query({'client': client})}", missing_ok=True)
        else:
            answer = self._of_key("GET", "/api/v1/why", "/api/v1/why", key, {"tenant_id": tenant})
        if answer is None:
            raise MasterIsUpstreams(address=self.address, what="say why")
        found = answer.get("findings") if isinstance(answer, dict) else None
        if not isinstance(found, list):
            raise self._strange(answer)
        return found

    def _refusal(self, answer: dict[str, Any], what: str, key: str) -> KeyNotFound | MasterRefused:
        code = Code.of(answer["error_code"])
        if code is Code.NOT_FOUND:
            return KeyNotFound(key=key)
        return MasterRefused(what=what, detail=code.sentence, code=int(code))

    def _upstream_status(self) -> dict[str, Any]:
        health = self._json("GET", "/health")
        detail = self._json("GET", "/get_segments_detail", missing_ok=True) or {"segments": []}
        with self._answer("GET", "/metrics") as answer:
            numbers = _numbers(self._read(answer).decode(errors="replace"))
        try:
            return {
                "version": None,
                "address": None,
                "up": None,
                "role": health["role"],
                "state": health["ha_state"],
                "ready": health["service_ready"],
                "numbers": numbers,
                "calls": {},
                "unknown_calls": {},
                "segments": detail["segments"],
                "clients": [],
            }
        except (KeyError, TypeError):
            raise self._strange(health) from None

    def _upstream_key(self, key: str, tenant: str) -> dict[str, Any]:
        if "," in key:
            raise MasterIsUpstreams(address=self.address, what="show a key with a comma in it")
        answer = self._json("GET", f"/batch_query_keys?{_query({'keys': key})}")
        try:
            found = answer["data"][key]
        except (KeyError, TypeError):
            raise self._strange(answer) from None
        if not found.get("ok"):
            raise KeyNotFound(key=key)
        replicas = [
            {"kind": "memory", "size": each["size_"], "endpoint": each["transport_endpoint_"],
             "address": each["buffer_address_"], "protocol": each["protocol_"]}
            for each in found.get("values") or ()
        ]  # fmt: skip
        size = max((each["size"] for each in replicas), default=0)
        return {"key": key, "tenant": tenant, "size": size, "leased_for": None, "replicas": replicas}

    def _of_key(self, method: str, path: str, posted: str, key: str, query: dict[str, str]) -> Any:
        """An answer about one key; None where there is no such path.

        A key goes as a body where it is too long for a line, or no text.
        """
        asked = f"{path}?{_query({'key': key, **query})}"
        body = key.encode(errors="surrogateescape")
        if len(asked) <= MAX_PATH and body == key.encode(errors="replace"):
            return self._json(method, asked, missing_ok=True)
        return self._json("POST", f"{posted}?{_query(query)}", body, missing_ok=True)

    def _json(self, method: str, path: str, body: bytes | None = None, *, missing_ok: bool = False) -> Any:
        """An answer in JSON. None for a path that is not there, where that is ``missing_ok``."""
        with self._answer(method, path, body) as answer:
            said = self._read(answer)
            is_json = (answer.getheader("Content-Type") or "").startswith("application/json")
            if answer.status == http.HTTPStatus.NOT_FOUND and not is_json and missing_ok:
                return None
            if not is_json:
                raise self._strange(said.decode(errors="replace"), answer.status)
        return self._understood(said)

    def _understood(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise self._strange(body.decode(errors="replace")) from None

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        body = answer.read(MAX_ANSWER + 1)
        if len(body) > MAX_ANSWER:
            raise MasterUnavailable(address=self.address, detail="its answer has no end")
        _must_be_whole(answer)
        return body

    def _lines(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        """Its lines. ``readline`` would take an answer that breaks off for one that ends."""
        rest = b""
        while data := answer.read(READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
            if len(rest) > MAX_LINE:
                raise self._strange(rest.decode(errors="replace"))
        _must_be_whole(answer)
        if rest:
            yield rest

    def _check(self, answer: http.client.HTTPResponse) -> None:
        if answer.status != http.HTTPStatus.OK:
            raise self._strange(self._read(answer).decode(errors="replace"), answer.status)

    def _strange(self, answer: object, status: int = 200) -> MasterUnavailable:
        text = str(answer).strip()
        detail = f"it answered {status} and {text[:SHOWN]!r}, which no master does"
        return MasterUnavailable(address=self.address, detail=detail)

    @contextlib.contextmanager
    def _answer(self, method: str, path: str, body: bytes | None = None) -> Iterator[http.client.HTTPResponse]:
        if len(path) > MAX_PATH:
            raise UsageError(detail="the key, prefix or tenant is too long for the metrics port; clients can use it")
        connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
            self.reached = True
            connection.sock.settimeout(ANSWER_SECONDS)
            connection.request(method, path, body)
            with connection.getresponse() as answer:
                yield answer
        except TimeoutError:
            detail = "it takes calls, and does not answer in time: it stands still, or is too busy"
            detail = detail if self.reached else "it does not answer in time"
            raise MasterUnavailable(address=self.address, detail=detail) from None
        except http.client.IncompleteRead:
            raise MasterUnavailable(address=self.address, detail="it broke off in the middle of its answer") from None
        except http.client.HTTPException as error:
            detail = f"what answers there speaks no HTTP ({type(error).__name__}); it may be the port for clients"
            raise MasterUnavailable(address=self.address, detail=detail) from None
        except OSError as error:
            raise MasterUnavailable(address=self.address, detail=(error.strerror or str(error)).lower()) from None
        finally:
            connection.close()


def _must_be_whole(answer: http.client.HTTPResponse) -> None:
    """``read`` says nothing where fewer bytes came than were promised. Raises ``IncompleteRead``."""
    if answer.length:
        raise http.client.IncompleteRead(b"", answer.length)


def _query(fields: dict[str, str]) -> str:
    return urlencode(fields, quote_via=quote, errors="surrogateescape")


def _numbers(text: str) -> dict[str, float]:
    """The plain metrics of a master, by name without ``master_`` and ``_total``."""
    numbers = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name and not name.startswith("#") and "{" not in name:
            with contextlib.suppress(ValueError):
                numbers[name.removeprefix("master_").removesuffix("_total").removesuffix("_")] = float(value)
    return numbers
