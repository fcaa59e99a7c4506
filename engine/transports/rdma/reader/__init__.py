"""Who reads: queue pairs, rails, and the ring of pinned buffers."""
