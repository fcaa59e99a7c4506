"""Origins: places outside the cluster that objects are read from, such as a model hub.

``p2pstore.errors`` draws the whole tree.
"""

from __future__ import annotations

from engine.errors import MooncakeError, Refused


class OriginUnavailable(MooncakeError):
    """An origin that cannot be reached, broke off, or is not well: it may be another time."""

    exit_code = 5
    sentence = "{origin} cannot be read now: {detail}"
    advice = "try again; 'curl -sSI {origin!q}' shows whether this host reaches it"


class OriginRefused(Refused):
    """An origin that is there and says no, or has no such thing; ``code`` is its own word for it, if it has one."""

    sentence = "{origin} refused: {detail}"
    advice = "check the name and the revision; for what is private, log in with its own tools, as the agent's user"


class OriginDiffers(MooncakeError):
    """What came from an origin is not what the origin said it would be."""

    exit_code = 4
    sentence = "what came from {origin} is not what it says it has: {detail}"
    advice = "try again; where it stays so, the origin itself is damaged, or something between changes what it sends"


class OriginChanged(MooncakeError):
    """An origin's file became another one while it was read: what came of it fits together no more."""

    exit_code = 4
    sentence = "{origin} changed while it was read: {detail}"
    advice = "run it again, once nobody writes there any more: it then reads what is there now"
