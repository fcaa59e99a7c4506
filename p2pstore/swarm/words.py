"""What a getter says to an uploader that grants. Pure."""

from __future__ import annotations

from p2pstore.swarm.events import Declined, Opened, Word
from p2pstore.swarm.granter import Granter


def say(granter: Granter, key: str, word: Word, now: float) -> None:
    """Tell a granter what a follower says to it."""
    if isinstance(word, Opened):
        granter.opened(key, word.under_way)
    elif isinstance(word, Declined):
        granter.declined(key, word.number, word.under_way, now, full=word.full)
    else:
        granter.done(key, word.number, word.under_way, now, full=word.full)
