"""The master of the pooled store: what serves its clients, and the people who run it."""
