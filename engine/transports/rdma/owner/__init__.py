"""Whose memory is read: grants, and the sessions that carry them."""
