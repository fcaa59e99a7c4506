"""One request to an engine, streamed: when each piece came, and how it ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

CONNECT_SECONDS = 10.0
"""For a connection to be taken."""

IDLE_SECONDS = 120.0
"""Between two pieces of an answer, and before the first: an engine that says nothing for so long is given up."""

MOST_LINE_BYTES = 1 << 20
"""A line of a stream; a longer one is no answer of an engine's."""

MOST_TOKENS = 1 << 31
"""Of one request that an engine is believed to have had or made."""

MOST_ERROR_CHARACTERS = 200
"""Of what a server says of an error that is kept."""

REFUSED = 429
"""The status of what is refused for lack of room or time."""

DONE = "[DONE]"


@dataclass(slots=True)
class Answer:
    """What became of a request. Times in seconds of the clock that was given."""

    began: float
    pieces: list[float] = field(default_factory=list)
    """When each piece with text came."""
    output: int = 0
    """Tokens, as the server counted them, or else pieces."""
    cached: int | None = None
    """Tokens of the prompt that the server had, where it says so."""
    prompt: int | None = None
    """Tokens of the prompt, where the server says so."""
    refused: bool = False
    error: str = ""
    """Why it failed, in words; empty where it was served, or refused."""

    @property
    def ttft(self) -> float | None:
        """Until the first piece."""
        return self.pieces[0] - self.began if self.pieces else None

    @property
    def tbt(self) -> float:
        """The mean of the longest tenth of the gaps between pieces, as the simulator has it; 0 where there is none."""
        gaps = sorted(
            (after - before for before, after in zip(self.pieces, self.pieces[1:], strict=False)), reverse=True
        )
        longest = gaps[: -(-len(gaps) // 10)]
        return sum(longest) / len(longest) if longest else 0.0


async def ask(
    session: aiohttp.ClientSession,
    url: str,
    body: dict[str, Any],
    clock: Callable[[], float],
    *,
    idle: float = IDLE_SECONDS,
) -> Answer:
    """Send one completion request and read its answer to the end. What goes wrong is in the answer."""
    answer = Answer(clock())
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=idle)
    connected = False
    try:
        async with session.post(url, json=body, timeout=limits) as response:
            connected = True
            if response.status != 200:
                await _not_served(answer, response)
            else:
                await _read(answer, response, clock)
    except asyncio.TimeoutError as error:
        refused = not connected and "connection timeout" in str(error).lower()
        answer.error = f"no connection within {CONNECT_SECONDS:g} s" if refused else f"nothing came for {idle:g} s"
    except aiohttp.ClientConnectorError as error:
        answer.error = f"no connection: {error.strerror or error}"
    except (aiohttp.ClientError, ConnectionError, _NoAnswer) as error:
        answer.error = str(error) or type(error).__name__
    return answer


class _NoAnswer(Exception):
    """What came is no answer as the interface has them."""


async def _not_served(answer: Answer, response: aiohttp.ClientResponse) -> None:
    if response.status == REFUSED:
        answer.refused = True
        return
    data = b""
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > MOST_LINE_BYTES:
            break
    said = data.decode("utf-8", "replace")
    try:
        said = str(json.loads(said)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        said = " ".join(said.split())
    answer.error = f"status {response.status}: {said[:MOST_ERROR_CHARACTERS]}"


async def _read(answer: Answer, response: aiohttp.ClientResponse, clock: Callable[[], float]) -> None:
    async for text in _events(response):
        if text == DONE:
            if not answer.pieces:
                raise _NoAnswer("the answer has no text")
            answer.output = answer.output or len(answer.pieces)
            return
        try:
            piece = json.loads(text)
            if "error" in piece:
                raise _NoAnswer(f"the server ended it: {str(piece['error'])[:MOST_ERROR_CHARACTERS]}")
            if any(choice.get("text") for choice in piece.get("choices", ())):
                answer.pieces.append(clock())
            if any(choice.get("finish_reason") == "error" for choice in piece.get("choices", ())):
                raise _NoAnswer("the server ended it with an error")
            _count(answer, piece.get("usage"))
        except (ValueError, AttributeError, TypeError):
            raise _NoAnswer(f"a piece is no JSON of the interface: {text[:MOST_ERROR_CHARACTERS]!r}") from None
    raise _NoAnswer("the stream ended before the answer did")


def _count(answer: Answer, usage: Any) -> None:
    if usage:
        answer.output = _tokens(usage.get("completion_tokens") or 0)
        answer.prompt = _tokens(usage.get("prompt_tokens") or 0)
        details = usage.get("prompt_tokens_details")
        if details and details.get("cached_tokens") is not None:
            answer.cached = _tokens(details["cached_tokens"])


def _tokens(said: Any) -> int:
    """A count of tokens as an engine says it; ValueError or TypeError where it can be none."""
    if not 0 <= said <= MOST_TOKENS:
        raise ValueError(said)
    return int(said)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The data of a stream of server-sent events."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MOST_LINE_BYTES:
            raise _NoAnswer(f"a line is longer than {MOST_LINE_BYTES} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip().decode("utf-8", "replace")
