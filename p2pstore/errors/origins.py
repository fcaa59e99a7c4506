"""Origins: places outside the cluster that objects are read from, such as a model hub.

``p2pstore.errors`` draws the whole tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from engine.errors import MooncakeError, Refused, UsageError


class OriginUnavailable(MooncakeError):
    """An origin that cannot be reached, broke off, or is not well: it may be another time."""

    exit_code = 5
    sentence = "{origin} cannot be read now: {detail}"
    advice = "try again; 'curl -sSI {origin!q}' shows whether this host reaches it"
    advice_by_scheme: ClassVar[Mapping[str, str]] = {
        "s3": "try again; 'aws s3 ls {origin!q}' shows whether this host reaches it",
        "file": "try again, once the file system that it is on answers",
    }
    """In place of ``advice``, by what the origin's URL begins with."""

    @property
    def hint(self) -> str:
        """See ``MooncakeError.hint``."""
        return self.filled(self.advice_by_scheme.get(_scheme(self), self.advice))


class HubUnset(UsageError):
    """A repository of the model hub that nobody here has read, and an agent that reads no hub."""

    sentence = "nobody here has read {origin} before, and this agent reads no hub"
    advice = (
        "end the agent with 'mooncake node stop', and run it again with MOONCAKE_HF_UPSTREAM=https://huggingface.co, "
        "or with hf_upstream set"
    )


class OriginNotFound(MooncakeError):
    """An origin that is there, and has no such thing; or one that says so to who may not read it."""

    exit_code = 3
    sentence = "nothing is found at {origin}: {detail}"
    advice = "check the name and the revision; if it is private, log in with its own tools, as the agent's user"
    advice_by_scheme: ClassVar[Mapping[str, str]] = {
        "https": "check the address; if it is private, it is read with the hub token, or ~/.netrc, of the agent's user",
        "http": "check the address; if it is private, it is read with the hub token, or ~/.netrc, of the agent's user",
        "s3": "check bucket and key: 'aws s3 ls {origin!q}' shows what is there",
        "file": "check the path, on the host of the agent",
    }
    """As of ``OriginUnavailable``."""

    @property
    def hint(self) -> str:
        """See ``MooncakeError.hint``."""
        return self.filled(self.advice_by_scheme.get(_scheme(self), self.advice))


class OriginRefused(Refused):
    """An origin that is there and says no; ``code`` is its own word for it, if it has one."""

    sentence = "{origin} refused: {detail}"
    advice = "check the name and the revision; for what is private, log in with its own tools, as the agent's user"
    advice_by_scheme: ClassVar[Mapping[str, str]] = {
        "https": "check the address; what is private is read with the hub token, or ~/.netrc, of the agent's user",
        "http": "check the address; what is private is read with the hub token, or ~/.netrc, of the agent's user",
        "s3": "check bucket and key; it is read with what boto finds as the agent's user, such as ~/.aws/credentials",
        "file": "check the path, and that the agent's user may read it",
    }
    """As of ``OriginUnavailable``."""

    @property
    def hint(self) -> str:
        """See ``MooncakeError.hint``."""
        return self.filled(self.advice_by_scheme.get(_scheme(self), self.advice))


class OriginUnsuited(OriginRefused):
    """An origin that may be read, but not so that many nodes could be sure to have the same."""

    sentence = "{origin} cannot be read by ranges: {detail}"
    advice = "download it with its own tools, and register the file"
    advice_by_scheme: ClassVar[Mapping[str, str]] = {}


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


def _scheme(error: MooncakeError) -> str:
    return str(error.fields["origin"]).partition("://")[0]
