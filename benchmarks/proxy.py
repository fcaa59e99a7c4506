"""What the proxy adds, how many streams it holds, and how many requests a second it serves beside upstream's demo.

::

    python benchmarks/proxy.py [--rounds 5] [--seconds 4] [--streams 200] [--many 1500] [--only latency,many,rate]
    python benchmarks/proxy.py --demo PYTHON proxy_demo.py

The engines are a process that answers at once, as vLLM does, with tokens of a given pace; each token says when it was
made, so that a client knows how long it took. ``latency`` compares that through the proxy with what it is without one:
for one token, and for a request's first token (for which two engines are asked), where all streams are begun within 50
ms, and where one begins as another ends. ``many`` counts the tokens of many streams.
``rate`` has 64 clients ask for four tokens again and again; with ``--demo`` upstream's ``proxy_demo.py`` (from
Mooncake's ``benchmarks/xypd_benchmarks``, run by a PYTHON that has fastapi, uvicorn, uvloop, aiohttp and requests) does
the same in turns, round by round.

In both, ``bare`` is what aiohttp takes on this machine: a forwarder of two requests that looks at nothing, decides
nothing and survives nothing. A proxy has one core, engines and clients the others. What counts beside others on a
machine is the processor time of a request.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from checkouts import print_table, ratios
from counts import as_amount, as_count

from p2pstore.kv.master import loops
from p2pstore.serving.proxy.upstream import KEEPALIVE_SECONDS

MODEL = "tiny"
CLIENTS = 64
START_SECONDS = 60.0
WAIT_SECONDS = 120.0
"""For an answer that does not come."""

TICKS = os.sysconf("SC_CLK_TCK")


# The engines: a process of their own


class Engine(asyncio.Protocol):
    """One connection. A prompt of ``{"tokens": N, "pace": SECONDS}`` in ``user`` says what to answer."""

    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(rest) < length:
            return
        self._data = rest[length:]
        if head.startswith(b"GET"):
            self._whole({"object": "list", "data": [{"id": MODEL}]})
            return
        body = json.loads(rest[:length])
        asked = json.loads(body["user"])
        if body.get("max_tokens") == 1 or not body.get("stream"):
            self._whole({"choices": [{"index": 0, "text": "x", "message": {"content": "x"}}]})
            return
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self._token(0, asked["tokens"], asked["pace"])

    def _whole(self, said: Any) -> None:
        body = json.dumps(said).encode()
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )

    def _token(self, number: int, count: int, pace: float) -> None:
        while not self._transport.is_closing():
            if number == count:
                self._chunk(b"data: [DONE]\n\n")
                self._transport.write(b"0\r\n\r\n")
                return
            text = b"%d:%d" % (number, time.monotonic_ns())
            self._chunk(b'data: {"id":"x","object":"c","choices":[{"index":0,"text":"%s"}]}\n\n' % text)
            number += 1
            if pace:
                asyncio.get_running_loop().call_later(pace, self._token, number, count, pace)
                return

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%s\r\n" % (len(data), data))


async def engines() -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Engine, "127.0.0.1", 0, backlog=4096) for _ in range(4)]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.sleep(86400)


# What forwards, and does nothing else


async def bare(port: int, prefill: Sequence[str], decode: Sequence[str]) -> None:
    turn = itertools.count()
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS)
    session = aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None)
    )
    headers = {"Content-Type": "application/json"}

    async def forward(request: web.Request) -> web.StreamResponse:
        body, number = await request.read(), next(turn)
        copy = body.replace(b'"stream": true', b'"stream": false')
        async with session.post(f"http://{prefill[number % 2]}{request.path}", data=copy, headers=headers) as answer:
            await answer.read()
        async with session.post(f"http://{decode[number % 2]}{request.path}", data=body, headers=headers) as answer:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            while data := await answer.content.readany():
                await response.write(data)
            await response.write_eof()
            return response

    async def status(_: web.Request) -> web.Response:
        return web.json_response({"prefill_node_count": len(prefill), "decode_node_count": len(decode)})

    app = web.Application()
    app.router.add_post("/v1/completions", forward)
    app.router.add_get("/status", status)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.sleep(86400)


# The clients


class Answer:
    """What a client has of one request: when it was sent, and each token's delay and the first one's time."""

    def __init__(self) -> None:
        self.sent = time.monotonic_ns()
        self.first = 0
        self.delays: list[int] = []
        self.done = False
        self.wrong = ""


class Client(asyncio.Protocol):
    """One connection, for one request after the other."""

    def __init__(self) -> None:
        self._rest = b""
        self._answer: Answer | None = None
        self._ended: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def close(self) -> None:
        self._transport.close()

    def ask(self, tokens: int, pace: float, prompt: str) -> asyncio.Future[Answer]:
        user = json.dumps({"tokens": tokens, "pace": pace})
        said = {"model": MODEL, "prompt": prompt, "max_tokens": tokens, "stream": True, "user": user}
        body = json.dumps(said).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        self._answer = Answer()
        self._ended = asyncio.get_running_loop().create_future()
        self._transport.write(head.encode() + b"\r\n\r\n" + body)
        return self._ended

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        answer = self._answer
        if answer is None:
            return
        data = self._rest + data
        whole, _, self._rest = data.rpartition(b"\n\n")
        for part in whole.split(b'"text":"')[1:]:
            number, _, made = part.partition(b'"')[0].partition(b":")
            if int(number) != len(answer.delays):
                answer.wrong = f"token {int(number)} after {len(answer.delays)}"
            answer.delays.append(now - int(made))
            answer.first = answer.first or now
        if b"[DONE]" in whole:
            answer.done = True
        if answer.done and (self._rest.endswith(b"0\r\n\r\n") or data.endswith(b"0\r\n\r\n")):
            self._over(answer)

    def connection_lost(self, _: Exception | None) -> None:
        if self._answer is not None:
            self._answer.wrong = self._answer.wrong or "the connection ended"
            self._over(self._answer)

    def _over(self, answer: Answer) -> None:
        self._answer, self._rest = None, b""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(answer)


async def clients(port: int, count: int) -> list[Client]:
    loop = asyncio.get_running_loop()
    made = []
    for _ in range(count):
        _, client = await loop.create_connection(Client, "127.0.0.1", port)
        made.append(client)
    return made


async def streams(port: int, count: int, tokens: int, pace: float, *, steady: bool = False) -> list[Answer]:
    """So many streams at a time, begun within one pace; ``steady``: of each client the second, as its first ends."""
    made = await clients(port, count)
    pause = pace * (tokens if steady else 1) / count

    async def ask(client: Client) -> Answer:
        for _ in range(int(steady)):
            await client.ask(tokens, pace, "x" * 200)
        return await client.ask(tokens, pace, "x" * 200)

    ended = []
    for client in made:
        ended.append(asyncio.ensure_future(ask(client)))
        await asyncio.sleep(pause)
    try:
        return await asyncio.wait_for(asyncio.gather(*ended), WAIT_SECONDS + 2 * tokens * pace)
    finally:
        for client in made:
            client.close()


async def rate(port: int, seconds: float) -> float:
    """Requests a second of ``CLIENTS`` clients."""
    made = await clients(port, CLIENTS)
    end = time.monotonic() + seconds
    served = 0

    async def go_on(client: Client) -> None:
        nonlocal served
        while time.monotonic() < end:
            answer = await asyncio.wait_for(client.ask(4, 0.0, "x" * 200), WAIT_SECONDS)
            if answer.wrong or not answer.done or len(answer.delays) != 4:
                raise SystemExit(f"an answer was wrong: {answer.wrong}")
            served += 1

    began = time.monotonic()
    await asyncio.gather(*map(go_on, made))
    took = time.monotonic() - began
    for client in made:
        client.close()
    return served / took


# Processes


class Process:
    """A process on cores of its own."""

    def __init__(self, words: Sequence[str], cores: set[int], *, quiet: bool = True) -> None:
        self.process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE if not quiet else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        )
        os.sched_setaffinity(self.process.pid, cores)

    def seconds(self) -> float:
        """Processor time that it took."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> int:
        """MiB that it has."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def free_port() -> int:
    import socket  # noqa: PLC0415 - only here

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Bench:
    """The engines, and proxies before them."""

    def __init__(self, demo: Sequence[str]) -> None:
        every = sorted(os.sched_getaffinity(0))
        self._own, self._others = {every[0]}, set(every[1:]) or {every[0]}
        os.sched_setaffinity(0, self._others)
        self.engines = Process([sys.executable, __file__, "--engines"], self._others, quiet=False)
        assert self.engines.process.stdout is not None
        self.ports = [int(port) for port in self.engines.process.stdout.readline().split()]
        self.demo = demo

    def proxy(self, whose: str) -> tuple[Process, int]:
        port = free_port()
        here = [f"127.0.0.1:{one}" for one in self.ports]
        instances = ["--prefill", *here[:2], "--decode", *here[2:]]
        start = {
            "ours": [sys.executable, "-m", "mooncake_cli", "proxy"],
            "bare": [sys.executable, __file__, "--bare"],
            "demo": list(self.demo),
        }[whose]
        process = Process([*start, "--model", MODEL, "--port", str(port), *instances], self._own)
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError, ValueError):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
                    said = json.load(answer)
                if (said["prefill_node_count"], said["decode_node_count"]) == (2, 2):
                    return process, port
            if time.monotonic() > deadline or process.process.poll() is not None:
                raise SystemExit(f"the proxy ({whose}) does not start")
            time.sleep(0.1)

    def close(self) -> None:
        self.engines.close()


def milliseconds(values: Sequence[int]) -> tuple[float, float]:
    """Median and 99th percentile."""
    ordered = sorted(values)
    return statistics.median(ordered) / 1e6, ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] / 1e6


def latency(bench: Bench, count: int, rounds: int) -> dict[str, Any]:
    """What each adds to a token and to the first token, with ``count`` streams of 20 tokens a second."""
    running = {name: bench.proxy(name) for name in ("ours", "bare")}
    found: dict[str, dict[str, list[tuple[float, float]]]] = {name: {} for name in running}
    try:
        for steady in (False, True):
            for _ in range(rounds):
                direct = delays(bench.ports[2], count, steady=steady)
                for name, (_, port) in running.items():
                    for what, through in delays(port, count, steady=steady).items():
                        added = through[0] - direct[what][0], through[1] - direct[what][1]
                        found[name].setdefault(what, []).append(added)
    finally:
        for process, _ in running.values():
            process.close()
    return {
        f"{what}, {name}": {
            "p50_ms": round(statistics.median(pair[0] for pair in pairs), 2),
            "p99_ms": round(statistics.median(pair[1] for pair in pairs), 2),
            "best_p50_ms": round(min(pair[0] for pair in pairs), 2),
            "best_p99_ms": round(min(pair[1] for pair in pairs), 2),
        }
        for name, each in found.items()
        for what, pairs in each.items()
    }


def delays(port: int, count: int, *, steady: bool) -> dict[str, tuple[float, float]]:
    """Median and 99th percentile of the milliseconds that a token, and the first one, took."""
    answers = asyncio.run(streams(port, count, 60, 0.05, steady=steady))
    check(answers, 60)
    first = milliseconds([answer.first - answer.sent for answer in answers])
    if steady:
        return {"first token, one after the other": first}
    every = milliseconds([delay for answer in answers for delay in answer.delays])
    return {"token": every, "first token, all at once": first}


def check(answers: Sequence[Answer], tokens: int) -> None:
    for answer in answers:
        if answer.wrong or not answer.done or len(answer.delays) != tokens:
            raise SystemExit(f"a stream was wrong: {answer.wrong or len(answer.delays)}")


def many(bench: Bench, count: int) -> dict[str, Any]:
    """Streams at a time, of 5 tokens a second; none may lose a token."""
    process, port = bench.proxy("ours")
    try:
        before, began = process.seconds(), time.monotonic()
        answers = asyncio.run(streams(port, count, 50, 0.2))
        took, used = time.monotonic() - began, process.seconds() - before
        check(answers, 50)
        p50, p99 = milliseconds([delay for answer in answers for delay in answer.delays])
        return {
            "streams": count,
            "tokens": sum(len(answer.delays) for answer in answers),
            "lost": 0,
            "seconds": round(took, 1),
            "core_used": round(used / took, 2),
            "token_p50_ms": round(p50, 1),
            "token_p99_ms": round(p99, 1),
            "memory_mib": process.memory(),
        }
    finally:
        process.close()


def rates(bench: Bench, rounds: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of a request, wall and processor: ours beside each other's, in turns."""
    names = ["ours", "bare", *(["demo"] if bench.demo else [])]
    running = {name: bench.proxy(name) for name in names}
    wall: dict[str, list[float]] = {name: [] for name in names}
    processor: dict[str, list[float]] = {name: [] for name in names}
    try:
        for number in range(rounds):
            for name in names if number % 2 else names[::-1]:
                process, port = running[name]
                before = process.seconds()
                began = time.monotonic()
                served = asyncio.run(rate(port, seconds))
                took = time.monotonic() - began
                wall[name].append(1e3 / served)
                processor[name].append(1e3 * (process.seconds() - before) / (served * took))
    finally:
        for process, _ in running.values():
            process.close()
    figures = {"ms a request": wall, "processor ms a request": processor}
    return ratios(
        {
            f"{what}, {name}": list(zip(figure["ours"], figure[name], strict=True))
            for name in names[1:]
            for what, figure in figures.items()
        }
    )


@contextlib.contextmanager
def started(demo: Sequence[str]) -> Iterator[Bench]:
    bench = Bench(demo)
    try:
        yield bench
    finally:
        bench.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=as_count, default=5)
    parser.add_argument("--seconds", type=as_amount, default=4.0)
    parser.add_argument("--streams", type=as_count, default=200)
    parser.add_argument("--many", type=as_count, default=1500)
    parser.add_argument("--only", default="latency,many,rate")
    parser.add_argument("--demo", nargs=2, default=[], metavar=("PYTHON", "SCRIPT"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--engines", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    for option, count in (("--model", None), ("--port", None), ("--prefill", 2), ("--decode", 2)):
        parser.add_argument(option, nargs=count, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        loops.run(bare(int(given.port), given.prefill, given.decode))
        return
    if given.engines:
        asyncio.run(engines())
        return
    found: dict[str, Any] = {}
    with started(given.demo) as bench:
        if "latency" in given.only:
            found["latency"] = latency(bench, given.streams, given.rounds)
        if "many" in given.only:
            found["many"] = many(bench, given.many)
        if "rate" in given.only:
            found["rate"] = rates(bench, given.rounds, given.seconds)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for what, row in found.get("latency", {}).items():
        print(f"added to a {what:<40}{json.dumps(row)}")
    if "many" in found:
        print("many", json.dumps(found["many"]))
    if "rate" in found:
        print_table(found["rate"])


if __name__ == "__main__":
    main()
