"""The state of a master, pure: what is in the pool, who may have it, and what goes when memory is short."""
