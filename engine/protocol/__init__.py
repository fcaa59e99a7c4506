"""Mooncake's wire formats, without input and output."""
