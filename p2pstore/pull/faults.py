"""What went wrong with each source of a pull, for as long as it has not gone well again. Pure."""

from __future__ import annotations

from engine.errors import MooncakeError


class Faults:
    """The latest fault of each source. One thread tells of them; any may ask for the ``last``."""

    def __init__(self) -> None:
        self._by_source: dict[str, MooncakeError] = {}

    @property
    def last(self) -> MooncakeError | None:
        """The latest fault of a source that has not done better since."""
        standing = list(self._by_source.values())
        return standing[-1] if standing else None

    def of(self, source: str) -> MooncakeError | None:
        """The latest fault of this source, if it has not done better since."""
        return self._by_source.get(source)

    def add(self, source: str, fault: MooncakeError) -> None:
        """Something went wrong with a source."""
        self._by_source.pop(source, None)  # so that it comes last
        self._by_source[source] = fault

    def clear(self, source: str) -> None:
        """It goes well with a source: what went wrong before is no reason for what comes."""
        self._by_source.pop(source, None)
