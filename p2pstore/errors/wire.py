"""An error on its way over the control plane, as JSON."""

from __future__ import annotations

from typing import Any

from engine.errors import MooncakeError


def all_errors() -> list[type[MooncakeError]]:
    """Every class of the tree, root first, each parent before its children."""
    found: list[type[MooncakeError]] = []
    waiting: list[type[MooncakeError]] = [MooncakeError]
    while waiting:
        cls = waiting.pop(0)
        found.append(cls)
        waiting = cls.__subclasses__() + waiting
    return found


def to_wire(error: MooncakeError) -> dict[str, Any]:
    """The JSON form of an error: class name, fields, and for readers without our classes its sentence and advice."""
    fields = {k: v if isinstance(v, (str, int, float, bool)) else str(v) for k, v in error.fields.items()}
    return {
        "type": type(error).__name__,
        "fields": fields,
        "message": str(error),
        "advice": error.hint,
        "exit_code": error.exit_code,
    }


def from_wire(data: object) -> MooncakeError:
    """The error that ``to_wire`` described; an unknown or malformed one becomes a plain ``MooncakeError``."""
    if isinstance(data, dict):
        fields = data.get("fields")
        for cls in all_errors():
            if cls.__name__ == data.get("type") and isinstance(fields, dict):
                try:
                    error = cls(**fields)
                    _ = error.hint  # it needs its fields, too
                except (KeyError, ValueError, TypeError):
                    break
                else:
                    return error
        return MooncakeError(detail=str(data.get("message", data)))
    return MooncakeError(detail=repr(data))
