"""Who sends what to whom: pure decisions."""
