"""One check and what it came to. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """``subject`` was looked at, and ``detail`` was found; where it is not well, ``advice`` says what to do or to run.

    ``code`` is the exit status that a failure means, as the error tree has it.
    """

    subject: str
    verdict: Verdict
    detail: str
    advice: str = ""
    code: int = 0

    def to_json(self) -> dict[str, Any]:
        """As a document."""
        return asdict(self)


def ok(subject: str, detail: str) -> Check:
    """It is well."""
    return Check(subject, "ok", detail)


def warning(subject: str, detail: str, advice: str = "") -> Check:
    """It is missing or unusual, and the rest works without."""
    return Check(subject, "warning", detail, advice)


def failed(subject: str, detail: str, advice: str, code: int) -> Check:
    """It is needed and does not work."""
    return Check(subject, "failed", detail, advice, code)


def check_of(data: Any) -> Check:
    """A check that came as a document, perhaps from a peer: what is strange about it is left out."""
    fields = data if isinstance(data, dict) else {}
    verdict = fields.get("verdict")
    code = fields.get("code")
    return Check(
        str(fields.get("subject", ""))[:200],
        verdict if verdict in ("ok", "warning", "failed") else "failed",
        str(fields.get("detail", ""))[:1000],
        str(fields.get("advice", ""))[:1000],
        code if type(code) is int and 0 < code < 256 else 5,
    )


def exit_code(checks: Iterable[Check]) -> int:
    """That of the first failure; 0 where there is none."""
    return next((check.code for check in checks if check.verdict == "failed"), 0)
