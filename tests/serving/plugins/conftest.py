"""The same master, and the same time, as the tests with small classes have."""

from tests.p2pstore.integrations.conftest import master, waits

__all__ = ["master", "waits"]
