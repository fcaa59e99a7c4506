"""Prompts for the requests of a trace: equal blocks get equal words, so that engines find the prefixes that they share.

A trace has no text, only a number for each block. Its words are drawn from those numbers. How many tokens a word has is
the tokenizer's business; the words are short ones, which most have as one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from p2pstore.serving.simulation.trace import Request

BLOCK_TOKENS = 512
"""Tokens of a block of the open traces."""

WORDS = (
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state",
    "family", "student", "group", "country", "problem", "hand", "part", "place", "case", "week", "company",
    "system", "program", "question", "work", "government", "number", "night", "point", "home", "water", "room",
    "mother", "area", "money", "story", "fact", "month", "lot", "right", "study", "book", "eye", "job", "word",
    "business", "issue", "side", "kind", "head", "house", "service", "friend", "father", "power", "hour", "game",
    "line", "end", "member", "law", "car", "city", "community", "name", "president", "team", "minute", "idea",
    "kid", "body", "back", "parent", "face", "others", "level", "office", "door", "health", "person", "art",
    "war", "history", "party", "result", "change", "morning", "reason", "research", "girl", "guy", "moment",
    "air", "teacher", "force", "education", "foot", "boy", "age", "policy", "music", "market", "sense", "nation",
    "plan", "college", "interest", "death",
)  # fmt: skip
"""What prompts are made of."""


def scaled(length: int, scale: float) -> int:
    """Tokens of a prompt or an output that is to be so many times as short; at least one."""
    return max(1, round(length / scale))


def prompt(request: Request, scale: float = 1.0) -> str:
    """The words of a prompt, about as many as the request has tokens, or ``scale`` times as few.

    The last block is cut where the prompt ends, and what the trace names no blocks for is drawn from the request alone.
    """
    block = scaled(BLOCK_TOKENS, scale)
    wanted = scaled(request.length, scale)
    words: list[str] = []
    for number in request.blocks:
        if len(words) >= wanted:
            break
        words += _block(("block", number), block)
    if len(words) < wanted:
        words += _block(("rest", request.time, request.blocks), wanted - len(words))
    return " ".join(words[:wanted])


def _block(key: object, length: int) -> Sequence[str]:
    return random.Random(repr(key)).choices(WORDS, k=length)  # noqa: S311 - repeatable is what it must be
