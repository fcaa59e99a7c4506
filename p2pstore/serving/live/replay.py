"""A trace, sent to real engines at its times: what clients would have seen.

Requests are sent when the trace says so, whether or not earlier ones have been answered: so a server that falls behind
is seen to.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from p2pstore.errors import UsageError
from p2pstore.serving.admission import Objectives
from p2pstore.serving.live.prompts import prompt, scaled
from p2pstore.serving.live.stream import IDLE_SECONDS, Answer, ask
from p2pstore.serving.simulation.outcome import spread
from p2pstore.serving.simulation.trace import Request

MOST_STREAMS = 2000
"""Requests under way at once. More wait, and are counted: the load is then less than the trace's."""

MODELS_SECONDS = 10.0
"""For the list of models."""

MOST_ERRORS = 20
"""Kinds of errors that are told apart."""


@dataclass(frozen=True)
class Target:
    """Where requests go, which model they ask for (empty: the first that the server has), and what their header has."""

    url: str
    model: str = ""
    key: str = field(default="", repr=False)

    def place(self, path: str) -> URL:
        """A place below the interface's root; ``/v1`` may be part of the address. Raises ``UsageError``."""
        try:
            root = URL(self.url)
        except ValueError:
            root = URL()
        if root.scheme not in {"http", "https"} or not root.host:
            raise UsageError(detail=f"{self.url!r} is no address of a server, such as http://127.0.0.1:8000")
        base = root.path.rstrip("/").removesuffix("/v1")
        return root.with_path(f"{base}/v1/{path}")

    @property
    def headers(self) -> Mapping[str, str]:
        """Of each request."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


@dataclass(frozen=True)
class Plan:
    """How a trace is played: so many times as fast, with prompts and outputs so many times as short."""

    speed: float = 1.0
    scale: float = 1.0
    objectives: Objectives = field(default_factory=Objectives)

    def __post_init__(self) -> None:
        if not 0 < self.speed < float("inf"):
            raise ValueError(f"a speed must be greater than 0, and this is {self.speed:g}")
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"a scale must be greater than 0, and this is {self.scale:g}")


@dataclass
class Result:
    """What became of a trace's requests."""

    plan: Plan
    answers: list[Answer] = field(default_factory=list)
    span: float = 0.0
    """From the first request to the last, seconds."""
    seconds: float = 0.0
    """Until the last answer."""
    waited: int = 0
    """Requests that were sent late, since ``MOST_STREAMS`` were under way."""

    def to_json(self) -> dict[str, Any]:
        """As a document, in the words of the simulator's."""
        served = [each for each in self.answers if each.pieces and not each.error]
        ttft = [each.ttft or 0.0 for each in served]
        limits = self.plan.objectives
        good = sum((each.ttft or 0.0) <= limits.ttft and each.tbt <= limits.tbt for each in served)
        errors = Counter(each.error for each in self.answers if each.error)
        known = [each for each in served if each.cached is not None and each.prompt]
        prompts = sum(each.prompt or 0 for each in known)
        return {
            "speed": self.plan.speed,
            "scale": self.plan.scale,
            "requests": len(self.answers),
            "finished": len(served),
            "good": good,
            "goodput": round(good / self.span if self.span else float(good), 4),
            "rejected": sum(each.refused for each in self.answers),
            "failed": sum(errors.values()),
            "errors": dict(errors.most_common(MOST_ERRORS)),
            "late": self.waited,
            "ttft": spread(ttft),
            "tbt": spread([each.tbt for each in served]),
            "output_tokens": sum(each.output for each in served),
            "hit_rate": round(sum(each.cached or 0 for each in known) / prompts, 4) if prompts else None,
            "span": round(self.span, 3),
            "seconds": round(self.seconds, 3),
        }


async def replay(
    target: Target,
    requests: Sequence[Request],
    plan: Plan,
    *,
    progress: Callable[[int], None] = lambda _: None,
    idle: float = IDLE_SECONDS,
    streams: int = MOST_STREAMS,
) -> Result:
    """Send a trace's requests, and wait for all answers. ``progress`` hears how many there are.

    Raises ``UsageError`` where no server answers there at the beginning; later that is an error of each request.
    """
    result = Result(plan)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=target.headers) as session:
        model = target.model or await first_model(session, target)
        url = str(target.place("completions"))
        room = asyncio.Semaphore(streams)
        began = time.monotonic()
        first = requests[0].time if requests else 0.0

        async def one(request: Request) -> None:
            if room.locked():
                result.waited += 1
            async with room:
                body = {
                    "model": model,
                    "prompt": prompt(request, plan.scale),
                    "max_tokens": scaled(max(1, request.output), plan.scale),
                    "temperature": 0,
                    "ignore_eos": True,  # vLLM and SGLang: an output is as long as the trace says
                }
                result.answers.append(await ask(session, url, body, time.monotonic, idle=idle))
            progress(len(result.answers))

        tasks: list[asyncio.Task[None]] = []
        try:
            for request in requests:
                await asyncio.sleep(max(0.0, began + (request.time - first) / plan.speed - time.monotonic()))
                tasks.append(asyncio.create_task(one(request)))
            result.span = time.monotonic() - began
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    result.seconds = time.monotonic() - began
    return result


async def first_model(session: aiohttp.ClientSession, target: Target) -> str:
    """The name of the first model that a server has. Raises ``UsageError`` where it does not say."""
    place = target.place("models")
    try:
        async with session.get(place, timeout=aiohttp.ClientTimeout(total=MODELS_SECONDS)) as response:
            if response.status != 200:
                raise UsageError(
                    detail=f"{place} answers with status {response.status}: name the model with --live-model"
                )
            document = await response.json(content_type=None)
        return str(document["data"][0]["id"])
    except asyncio.TimeoutError:
        raise UsageError(detail=f"{place} does not answer within {MODELS_SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise UsageError(detail=f"no server answers at {place}: {getattr(error, 'strerror', '') or error}") from None
    except (ValueError, KeyError, IndexError, TypeError):
        raise UsageError(detail=f"{place} names no model: name it with --live-model") from None
