"""Bytes between machines: registered memory, Mooncake's wire, and the transports. It knows no objects."""
